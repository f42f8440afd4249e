"use strict";
// The page on which people grade candidates: what is known, keys, and how it starts.
//
// A grade is a line. It is kept in the browser first (kept.js), and then sent by the source
// (sources.js); it leaves the browser when the server has it on its disk. A page that is one file
// keeps all lines, to be saved. Text that comes from data is only ever set as text.

const GRADES = { q: "A", w: "B", e: "C", r: "X" };
const CLASSES = { a: "ring", s: "spiral", d: "merger", f: "companion", g: "artefact", h: "other" };
const PER_REQUEST = 1000;

let source = null;
let kept = null;
let facts = null;
let grader = null;

let screen = "start";
let view = null;
let ready = false; // what would be graded is drawn
let since = 0; // when it was
let turns = 0;

// ---- small things ----

const byId = (id) => document.getElementById(id);
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Set a text, and the key that does the same as a click. */
function setText(id, text, key = "") {
  byId(id).replaceChildren(text, ...(key ? [" ", make("kbd", { textContent: key })] : []));
}

function notice(text) {
  setText("notice", text);
  byId("notice").hidden = text === "";
}

/** Return what `ask` promised under a name, and ask if nobody has; the last `most` are kept. */
function askOnce(asked, name, most, ask) {
  const promise = asked.get(name) ?? ask();
  asked.delete(name);
  asked.set(name, promise);
  if (asked.size > most) asked.delete(asked.keys().next().value);
  return promise;
}

// ---- what is shown ----

/** Begin to show a screen, and return whether it is still wanted when all has come. */
function turnTo(name) {
  const turn = ++turns;
  ready = false;
  // A note that is being written belongs to what was shown.
  document.activeElement.blur();
  screen = name;
  if (!source.inTrouble) notice("");
  for (const id of ["start", "mosaic", "single"]) byId(id).hidden = id !== name;
  byId("views").hidden = name === "single";
  byId("views").replaceChildren(...facts.views.map((each) => viewButton(each)));
  setText("toggle", name === "mosaic" ? "One by one" : "Mosaic", "m");
  showProgress();
  return () => turn === turns;
}

/** All is drawn, and may be graded. */
function shown(what) {
  ready = true;
  since = performance.now();
  document.body.dataset.shown = what;
}

const secondsShown = () => (performance.now() - since) / 1000;

function showProgress() {
  setText("count", `${grades.size} of ${facts.total} graded`);
  byId("progress").max = facts.total;
  byId("progress").value = grades.size;
}

function viewButton(name, ...above) {
  const button = make("button", { value: name, ariaPressed: String(name === view) }, ...above, name);
  button.addEventListener("click", () => changeView(name));
  return button;
}

function changeView(name) {
  if (!ready) return;
  view = name;
  if (screen === "mosaic") showMosaic(lookedAt());
  else showSingle(at);
}

function switchScreen() {
  const place = lookedAt();
  if (screen === "single") {
    showMosaic(place);
  } else {
    list = null;
    showSingle(place);
  }
}

// ---- keys and clicks ----

const KEYS_OF_MOSAIC = {
  " ": toggleMark, Enter: finishPage, PageUp: () => turnPage(-1), PageDown: () => turnPage(1),
};
const KEYS_OF_SINGLE = {
  ArrowLeft: () => step(-1), ArrowRight: () => step(1), n: () => byId("note").focus(),
  "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: () => setZoom(1, 0, 0),
};
const MOVES = ["ArrowLeft", "ArrowRight", "PageUp", "PageDown", "m"];
const REPEATED = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "+", "=", "-"];

/** Return what a key does now, or nothing. What is not drawn is not graded. */
function actionOf(key) {
  const help = byId("help");
  if (key === "?") return () => (help.open ? help.close() : help.showModal());
  if (screen === "start" || help.open || !(ready || MOVES.includes(key))) return undefined;

  if (key in GRADES) return () => giveGrade(GRADES[key]);
  if (key in CLASSES) return () => giveClass(CLASSES[key]);
  if (key === "u") return undo;
  if (key === "m") return switchScreen;
  if (/^[1-9]$/.test(key) && facts.views[key - 1]) return () => changeView(facts.views[key - 1]);
  if (screen === "single") return KEYS_OF_SINGLE[key];
  return key.startsWith("Arrow") ? () => moveFocus(key) : KEYS_OF_MOSAIC[key];
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === byId("note")) endNote(event);
  // Fields and buttons have keys of their own.
  if (event.target.matches("input, textarea")) return;
  if (event.target.matches("button:not(.cell)") && [" ", "Enter"].includes(event.key)) return;

  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const action = actionOf(key);
  if (!action) return;

  event.preventDefault();
  // A key that is held down would grade what nobody has looked at.
  if (!event.repeat || REPEATED.includes(key)) action();
}

function endNote(event) {
  if (event.key === "Escape" || (event.key === "Enter" && !event.shiftKey)) {
    event.preventDefault();
    event.target.blur();
  }
}

function onClick(event) {
  const button = event.target.closest("button");
  if (button?.className === "cell" && ready) {
    setFocus(cells().indexOf(button));
    toggleMark();
  } else if (button?.dataset.key) {
    if (screen === "mosaic" && ready) setFocus(focus);
    actionOf(button.dataset.key)?.();
  }
}

/** Another window of this browser has graded or marked. */
function onOtherWindow({ key, newValue }) {
  if (!grader || !key?.startsWith(kept.prefix)) return;
  const name = key.slice(kept.prefix.length);
  if (name.startsWith(markName(""))) {
    marked[newValue ? "add" : "delete"](name.slice(markName("").length));
  } else if (name.startsWith(LINE) && newValue) {
    const line = JSON.parse(newValue);
    if (line.grader === grader) apply(line);
  }
  showProgress();
  if (ready && screen === "mosaic") showMarks();
}

// ---- saving and starting ----

/** Save the lines of this grader as a file that `lens-hpc combine` reads. */
function save() {
  const lines = [{ grading: facts.fingerprint, grader }, ...kept.linesOf(grader)];
  const text = lines.map((line) => `${JSON.stringify(line)}\n`).join("");
  const href = URL.createObjectURL(new Blob([text]));
  make("a", { href, download: `${grader}.jsonl` }).click();
  setTimeout(() => URL.revokeObjectURL(href), TIMEOUT_MS);
}

/** Return the first place without a grade. */
async function firstToGrade() {
  for (let first = 0; first < facts.total; first += PER_REQUEST) {
    const some = await itemsFrom(first, Math.min(PER_REQUEST, facts.total - first));
    const i = some.findIndex(({ item }) => !grades.has(item));
    if (i >= 0) return first + i;
  }
  return 0;
}

async function begin(event) {
  event.preventDefault();
  grader = byId("grader").value;
  localStorage.setItem("lens_hpc grader", grader);
  setText("name", `${facts.name} · ${grader}`);
  byId("bar").hidden = false;

  // What is kept here is newer than what the server has. It may get there meanwhile.
  const lines = kept.linesOf(grader);
  const known = await source.grades(grader);
  for (const [item, state] of Object.entries(known)) apply({ item, ...state });
  lines.forEach(apply);
  for (const name of kept.names(markName(""))) marked.add(name.slice(markName("").length));

  source.send();
  await showMosaic(await firstToGrade());
}

function makeButtons(id, names) {
  const buttons = Object.entries(names).map(([key, value]) => {
    const button = make("button", { value }, `${value} `, make("kbd", { textContent: key }));
    button.dataset.key = key;
    return button;
  });
  byId(id).replaceChildren(...buttons);
}

function listen() {
  byId("start").addEventListener("submit", begin);
  byId("save").addEventListener("click", save);
  byId("note").addEventListener("change", () => change(placeAt(at), { note: byId("note").value }));
  addEventListener("keydown", onKey);
  addEventListener("click", onClick);
  addEventListener("storage", onOtherWindow);
  addEventListener("resize", () => ready && (screen === "mosaic" ? fitCells() : setZoom(1, 0, 0)));
  addEventListener("beforeunload", (event) => source.isWaiting() && event.preventDefault());
  byId("cells").addEventListener("focusin", (event) => { focus = cells().indexOf(event.target); });
  listenToStage();
}

async function main() {
  const isEmbedded = byId("items") !== null;
  source = isEmbedded ? new Embedded() : new Server();
  facts = await source.open();
  kept = new Kept(facts.fingerprint);
  view = facts.views[0];
  makeButtons("grades", GRADES);
  makeButtons("classes", CLASSES);
  listen();

  setText("what", `${facts.name}: ${facts.total} candidates, bands ${facts.bands.join(", ")}`);
  setText("kept", isEmbedded
    ? "This browser keeps your grades. Save them in a file, and send it to whoever sent you this page."
    : "Each grade is on the server's disk at once, and you go on where you were.");
  byId("grader").value = localStorage.getItem("lens_hpc grader") ?? "";
  byId("grader").focus();
  document.body.dataset.shown = "start";
}

main().catch((error) => notice(`This page cannot start: ${error.message}`));
