"use strict";
// One by one: a candidate large and in all views, what is known of it, its grade, class and note.

const AHEAD = 5;
const ITEMS_KEPT = 20;
const MOST_ZOOM = 16;
const LONGEST_BAR = 0.4;
const STAGE_PIXELS = 768;
const SHOT_PIXELS = 128;

const VIEWERS = {
  "Legacy Survey": (ra, dec) =>
    `https://www.legacysurvey.org/viewer?ra=${ra}&dec=${dec}&layer=ls-dr10&zoom=16&mark=${ra},${dec}`,
  "Aladin Lite": (ra, dec) =>
    `https://aladin.cds.unistra.fr/AladinLite/?target=${encodeURIComponent(`${ra} ${dec}`)}&fov=0.02`,
  NED: (ra, dec) =>
    "https://ned.ipac.caltech.edu/conesearch?search_type=Near%20Position%20Search" +
    `&in_csys=Equatorial&in_equinox=J2000&coordinates=${ra}d%20${dec}d&radius=0.1`,
};

const pictures = new Map();
let list = null; // places that are shown one after the other; null: all
let at = 0; // which of them is shown
let zoom = { scale: 1, x: 0, y: 0 };

const placeAt = (number) => (list ? list[number] : number);
const lengthOfList = () => (list ? list.length : facts.total);

async function showSingle(number) {
  const isWanted = turnTo("single");
  at = number;
  const item = await itemAt(number);
  const drawn = await picturesOf(item.item);
  if (!isWanted()) return;

  drawViews(drawn);
  setZoom(1, 0, 0);
  showFacts(item);
  showState(item.item);
  setText("title", list ? `${number + 1} of ${list.length} marked` : `${number + 1} of ${facts.total}`);
  shown(`single ${item.item}`);

  const last = Math.min(number + AHEAD, lengthOfList() - 1);
  for (let next = number + 1; next <= last; next++) picturesOf((await itemAt(next)).item);
}

async function itemAt(number) {
  const place = placeAt(number);
  const first = pageOf(place);
  return (await itemsFrom(first, countOf(first)))[place - first];
}

/** Ask once for all views of an item; those of the last items are kept. */
function picturesOf(item) {
  const askAll = () => Promise.all(facts.views.map((name) => source.cutout(item, name)));
  return askOnce(pictures, item, ITEMS_KEPT, askAll);
}

/** Draw the chosen view large, and all of them small. */
function drawViews(drawn) {
  drawWhole(byId("cutout"), STAGE_PIXELS, drawn[facts.views.indexOf(view)]);
  const shots = drawn.map((picture, i) => {
    const canvas = make("canvas");
    drawWhole(canvas, SHOT_PIXELS, picture);
    return viewButton(facts.views[i], canvas);
  });
  byId("shots").replaceChildren(...shots);
}

// ---- what is known, and what the grader says ----

function showFacts(item) {
  const known = {
    Item: item.item, Score: item.score, Probability: item.probability,
    RA: degrees(item.ra), Dec: degrees(item.dec), ...item.columns,
  };
  const rows = Object.entries(known).filter(([, value]) => value !== null && value !== undefined);
  byId("facts").replaceChildren(...rows.flatMap(([name, value]) => [
    make("dt", { textContent: name }),
    make("dd", { textContent: typeof value === "number" ? Number(value.toPrecision(6)) : value }),
  ]));

  const hasPosition = Number.isFinite(item.ra) && Number.isFinite(item.dec);
  const links = Object.entries(VIEWERS).map(([name, address]) => make("a", {
    textContent: name, href: address(item.ra, item.dec), target: "_blank", rel: "noopener noreferrer",
  }));
  byId("links").replaceChildren(...(hasPosition ? links : []));
}

const degrees = (value) => (Number.isFinite(value) ? `${value.toFixed(6)}°` : null);

function showState(item) {
  const state = stateOf(item);
  for (const button of byId("grades").children) button.ariaPressed = String(button.value === state.grade);
  for (const button of byId("classes").children) button.ariaPressed = String(button.value === state.class);
  byId("note").value = state.note;
}

/** Go to the next or the one before; after the last of the marked ones, to the next page. */
function step(by) {
  const next = at + by;
  if (next >= 0 && next < lengthOfList()) {
    showSingle(next);
  } else if (by > 0 && list) {
    turnPage(1);
  } else if (by > 0) {
    showMosaic(placeAt(at));
    showEnd();
  }
}

// ---- zoom ----

/** Set the scale, and where the cutout's corner lies, so that it covers the stage. */
function setZoom(scale, x, y) {
  const side = byId("stage").clientWidth;
  const least = side * (1 - scale);
  const within = (value) => Math.min(0, Math.max(least, value));
  zoom = { scale, x: within(x), y: within(y) };
  byId("cutout").style.transform = `translate(${zoom.x}px, ${zoom.y}px) scale(${scale})`;
  byId("stage").style.touchAction = scale > 1 ? "none" : "auto";
  showScale(side);
}

/** Zoom by a factor about a point of the stage; without one, its middle. */
function zoomBy(factor, x = byId("stage").clientWidth / 2, y = x) {
  const scale = Math.min(MOST_ZOOM, Math.max(1, zoom.scale * factor));
  const ratio = scale / zoom.scale;
  setZoom(scale, x - (x - zoom.x) * ratio, y - (y - zoom.y) * ratio);
}

/** Show the longest bar of 1, 2 or 5 times a power of ten arcsec that is short enough. */
function showScale(side) {
  const width = (Math.max(...facts.shape) * facts.pixel_scale_arcsec) / zoom.scale;
  const power = 10 ** Math.floor(Math.log10(LONGEST_BAR * width));
  const length = [5, 2, 1].map((factor) => factor * power).find((arcsec) => arcsec <= LONGEST_BAR * width);
  byId("scale").style.width = `${(side * length) / width}px`;
  byId("scale").firstElementChild.textContent = `${Number(length.toPrecision(3))}″`;
}

function listenToStage() {
  const stage = byId("stage");
  const onWheel = (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.clientX - box.left, event.clientY - box.top);
  };
  stage.addEventListener("wheel", onWheel, { passive: false });
  stage.addEventListener("pointermove", (event) => {
    if (event.buttons === 1) setZoom(zoom.scale, zoom.x + event.movementX, zoom.y + event.movementY);
  });
}
