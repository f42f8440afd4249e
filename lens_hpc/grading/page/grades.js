"use strict";
// Grades: what the grader said of each candidate, here and in other windows, and how it is recorded.

const NOTHING = { grade: null, class: null, note: "" };

const items = []; // by place, as far as they were asked for
const grades = new Map(); // item -> its grade, class and note
const drafts = new Map(); // the same of those that have no grade yet
const marked = new Set();
const done = []; // what undo takes back, each a list of [place, state before]

const stateOf = (item) => grades.get(item) ?? drafts.get(item) ?? NOTHING;
const markName = (item) => `mark ${grader} ${item}`;

async function itemsFrom(first, count) {
  const places = Array.from({ length: count }, (_, i) => first + i);
  if (places.some((place) => !items[place])) {
    const got = await source.items(first, count);
    got.forEach((item, i) => { items[first + i] = item; });
  }
  return places.map((place) => items[place]);
}

function mark(item, isOn) {
  if (isOn) kept.set(markName(item), "1");
  else kept.remove(markName(item));
  marked[isOn ? "add" : "delete"](item);
}

/** Take a line into account, of this window or another. */
function apply({ item, grade, class: kind, note }) {
  drafts.delete(item);
  if (grade === null) grades.delete(item);
  else grades.set(item, { grade, class: kind, note });
}

function record(place, state, seconds) {
  const { item } = items[place];
  const line = {
    item, grader, ...state, seconds: Math.round(10 * seconds) / 10,
    time: new Date().toISOString(), window: kept.window, number: kept.count + 1, view: screen,
  };
  kept.addLine(line);
  apply(line);
  if (state.grade !== null && marked.has(item)) mark(item, false);
}

/** Record [place, state] of one moment, which undo takes back together. */
function recordTogether(changes, seconds) {
  done.push(changes.map(([place]) => [place, grades.get(items[place].item) ?? NOTHING]));
  for (const [place, state] of changes) record(place, state, seconds);
  source.send();
  since = performance.now();
  showProgress();
}

function undo() {
  const changes = done.pop();
  if (!changes) {
    notice("Nothing to undo in this window.");
    return;
  }
  for (const [place, before] of changes) record(place, before, 0);
  source.send();

  const [place] = changes[0];
  if (screen === "mosaic" || changes.length > 1) {
    showMosaic(place);
  } else {
    if (!list?.includes(place)) list = null;
    showSingle(list ? list.indexOf(place) : place);
  }
}

/** Change the grade, class or note of a candidate; without a grade it is a draft. */
function change(place, changed) {
  const { item } = items[place];
  const state = { ...stateOf(item), ...changed };
  if (state.grade === null) drafts.set(item, state);
  else recordTogether([[place, state]], secondsShown());
}

const lookedAt = () => (screen === "mosaic" ? start + focus : placeAt(at));

function giveGrade(grade) {
  change(lookedAt(), { grade });
  if (screen === "single") {
    step(1);
  } else {
    showMarks();
    moveFocus("ArrowRight");
  }
}

function giveClass(name) {
  const place = lookedAt();
  const { item } = items[place];
  change(place, { class: stateOf(item).class === name ? null : name });
  if (screen === "single") showState(item);
}
