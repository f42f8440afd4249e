"use strict";
// The mosaic: a page of cutouts to sweep. What may be a lens is marked, the rest gets an X at once.

const PER_PAGE = 200;
const SMALLEST_CELL = 56;
const LARGEST_CELL = 160;
const GAP = 2;
const SHEETS_KEPT = 4;

const sheets = new Map();
let start = 0; // place of the first cutout of the page
let focus = 0; // cell that keys act on, wherever the mouse has been meanwhile

const cells = () => [...byId("cells").children];
const countOf = (first) => Math.min(PER_PAGE, facts.total - first);
const pageOf = (place) => place - (place % PER_PAGE);

function placesOfPage() {
  return Array.from({ length: countOf(start) }, (_, i) => start + i);
}

/** Show the page on which a place lies, with the focus on its cell. */
async function showMosaic(place) {
  const isWanted = turnTo("mosaic");
  start = pageOf(place);
  focus = place - start;
  const first = start;
  const count = countOf(first);
  const [, drawers] = await Promise.all([itemsFrom(first, count), sheet(first)]);
  if (!isWanted()) return;

  const all = cells();
  while (all.length < count) all.push(make("button", { className: "cell" }, make("canvas")));
  byId("cells").replaceChildren(...all.slice(0, count));
  drawers.forEach((drawInto, i) => drawInto(all[i].firstChild));

  fitCells();
  showMarks();
  setFocus(place - first);
  shown(`mosaic ${first}`);
  if (first + PER_PAGE < facts.total) sheet(first + PER_PAGE);
}

/** Ask once for the cutouts of a page in the chosen view; the last ones are kept. */
function sheet(first) {
  return askOnce(sheets, `${first} ${view}`, SHEETS_KEPT, () => source.sheet(first, countOf(first), view));
}

/** Make cells as large as lets all of them be seen at once, where that can be. */
function fitCells() {
  const box = byId("cells");
  const width = box.clientWidth - 8;
  const height = innerHeight - box.offsetTop - box.nextElementSibling.offsetHeight - 8;
  const fit = (side) => Math.floor((width + GAP) / (side + GAP)) * Math.floor((height + GAP) / (side + GAP));

  let side = LARGEST_CELL;
  while (side > SMALLEST_CELL && fit(side) < box.children.length) side--;
  box.style.setProperty("--side", `${side}px`);
}

/** Show what is marked and graded on this page, and what Enter would do. */
function showMarks() {
  const places = placesOfPage();
  for (const [i, cell] of cells().entries()) {
    const { item } = items[places[i]];
    const { grade } = stateOf(item);
    cell.ariaPressed = String(marked.has(item));
    cell.ariaLabel = `Candidate ${places[i] + 1} ${grade ?? ""}`;
    cell.dataset.grade = grade ?? "";
  }

  const rest = places.filter(isUntouched).length;
  const count = places.filter(isMarked).length;
  const steps = [rest && `${rest} × X`, count && `look at ${count}`].filter(Boolean);
  setText("finish", steps.join(", then ") || "Next page", "Enter");
  setText("page", `page ${start / PER_PAGE + 1} of ${Math.ceil(facts.total / PER_PAGE)}`);
}

const isMarked = (place) => marked.has(items[place].item);
const isUntouched = (place) => !isMarked(place) && !grades.has(items[place].item);

function toggleMark() {
  const { item } = items[start + focus];
  mark(item, !marked.has(item));
  showMarks();
}

/** Give an X to what is neither marked nor graded, and look at the marked ones. */
function finishPage() {
  const places = placesOfPage();
  const rest = places.filter(isUntouched);
  const seconds = secondsShown() / places.length;
  const withX = (place) => [place, { ...stateOf(items[place].item), grade: "X" }];
  if (rest.length) recordTogether(rest.map(withX), seconds);

  list = places.filter(isMarked);
  if (list.length) showSingle(0);
  else turnPage(1);
}

function turnPage(step) {
  const next = start + step * PER_PAGE;
  const isThere = next >= 0 && next < facts.total;
  showMosaic(isThere ? next : start);
  if (!isThere && step > 0) showEnd();
}

function showEnd() {
  const missing = facts.total - grades.size;
  notice(missing ? `This is the end; ${missing} have no grade yet.` : "All are graded. Thank you!");
}

function moveFocus(key) {
  const all = cells();
  const columns = all.filter((cell) => cell.offsetTop === all[0].offsetTop).length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  if (ready && all[focus + step]) setFocus(focus + step);
}

function setFocus(i) {
  focus = i;
  cells()[i].focus();
}
