"use strict";
// Where candidates come from: the server of `lens-hpc grade`, or the page itself, where all of it is
// embedded in one file. Both have the same methods, and give pictures that are decoded.

const RETRY_MS = 2000;
const TIMEOUT_MS = 30000;
const LONGEST_REQUEST = 20000; // characters, of at most three bytes: the server takes 64 KiB
const LARGEST_IN_MOSAIC = 96;

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** The address of the page ends with the server's token, and all others are relative to it. */
class Server {
  async open() {
    this.facts = await this.ask("grading.json");
    return this.facts;
  }

  async items(start, count) {
    return (await this.ask(`items.json?start=${start}&count=${count}`)).items;
  }

  async grades(grader) {
    return (await this.ask(`grades.json?grader=${encodeURIComponent(grader)}`)).grades;
  }

  /** Return a function for each cutout of a page of the mosaic, which draws it into a canvas. */
  async sheet(start, count, view) {
    const size = Math.min(LARGEST_IN_MOSAIC, Math.max(...this.facts.shape));
    const query = `start=${start}&count=${count}&size=${size}&view=${encodeURIComponent(view)}`;
    const picture = await this.picture(`sheet.png?${query}`);

    const columns = Math.round(picture.width / size);
    return Array.from({ length: count }, (_, i) => {
      const [x, y] = [(i % columns) * size, Math.floor(i / columns) * size];
      return (canvas) => draw(canvas, size, picture, x, y, size);
    });
  }

  /** Return a cutout with as many pixels as it has: the page makes it larger. */
  cutout(item, view) {
    const query = `view=${encodeURIComponent(view)}&size=${Math.max(...this.facts.shape)}`;
    return this.picture(`cutout/${encodeURIComponent(item)}.png?${query}`);
  }

  ask(path) {
    return this.insist(async () => (await this.request(path)).json());
  }

  picture(path) {
    return this.insist(async () => createImageBitmap(await (await this.request(path)).blob()));
  }

  async request(path, options = {}) {
    const answer = await fetch(path, { ...options, signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!answer.ok) throw new Refused(answer.status, await reasonOf(answer));
    this.recovered();
    return answer;
  }

  /** Try until it succeeds. */
  async insist(attempt) {
    for (;;) {
      try {
        return await attempt();
      } catch (error) {
        this.tell(error);
      }
      await wait(RETRY_MS);
    }
  }

  /** Send the lines that are kept, of all windows, until the server has them on its disk. */
  async send() {
    if (this.sending) return;
    this.sending = true;
    while (kept.names(LINE).length) {
      // One window at a time, so that each grade is sent before later ones.
      const sent = await navigator.locks.request(kept.prefix, () => this.sendLines());
      if (!sent) await wait(RETRY_MS);
    }
    this.sending = false;
  }

  async sendLines() {
    try {
      for (let names = nextToSend(); names.length; names = nextToSend()) {
        await this.post(names.map((name) => JSON.parse(kept.get(name))));
        names.forEach((name) => kept.remove(name));
      }
      this.recovered();
      return true;
    } catch (error) {
      this.tell(error);
      return false;
    }
  }

  /** The server itself says when it got a line, and takes a line that it has already for granted. */
  post(lines) {
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify(lines.map(({ time, ...line }) => line));
    return this.request("grade", { method: "POST", headers, body });
  }

  tell(error) {
    this.inTrouble = true;
    const count = kept ? kept.names(LINE).length : 0;
    byId("save").hidden = count === 0;
    const unsent = count
      ? `Grades kept in this browser until then: ${count}. Saved in a file, lens-hpc combine reads them, too.`
      : "It has all your grades.";

    if (error.status === 403) {
      notice(`The server was started anew: open the address that it printed. ${unsent}`);
    } else if (error.status) {
      notice(`The server refuses (${error.status}): ${error.message} ${unsent}`);
    } else {
      notice(
        `The server does not answer. Start it again, with port=${location.port}, and open the ` +
        `address that it prints in this browser. ${unsent}`
      );
    }
  }

  /** Take back what was told, when all is well again. */
  recovered() {
    if (!this.inTrouble || kept?.names(LINE).length) return;
    this.inTrouble = false;
    byId("save").hidden = true;
    notice("");
  }

  /** Say whether grades could be lost, or late, if the window were closed now. */
  isWaiting() {
    return kept.names(LINE).length > 0;
  }
}

async function reasonOf(answer) {
  const isJson = answer.headers.get("Content-Type")?.startsWith("application/json");
  return isJson ? (await answer.json()).error : "";
}

/** Return the names of the first lines that are kept: of one grader, and few enough for a request. */
function nextToSend() {
  const [first, ...others] = kept.names(LINE);
  if (!first) return [];
  const { grader } = JSON.parse(kept.get(first));
  const names = [first];
  let length = kept.get(first).length;
  for (const name of others) {
    length += kept.get(name).length;
    if (length > LONGEST_REQUEST || JSON.parse(kept.get(name)).grader !== grader) break;
    names.push(name);
  }
  return names;
}

/** The blocks of the page: facts, items, and the pictures of each item. */
class Embedded {
  async open() {
    byId("save").hidden = false;
    this.all = JSON.parse(byId("items").textContent);
    return JSON.parse(byId("grading").textContent);
  }

  async items(start, count) {
    return this.all.slice(start, start + count);
  }

  /** All of them are kept in the browser. */
  async grades() {
    return {};
  }

  async send() {}

  async sheet(start, count, view) {
    const items = this.all.slice(start, start + count);
    const pictures = await Promise.all(items.map(({ item }) => this.cutout(item, view)));
    return pictures.map((picture) => (canvas) => drawWhole(canvas, LARGEST_IN_MOSAIC, picture));
  }

  async cutout(item, view) {
    const image = new Image();
    image.src = JSON.parse(byId(`pictures-${item}`).textContent)[view];
    await image.decode();
    return image;
  }

  isWaiting() {
    return kept.memory.size > 0;
  }
}

/** Draw a square of a picture over a whole canvas, `side` pixels wide and high. */
function draw(canvas, side, picture, x, y, size) {
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, x, y, size, size, 0, 0, side, side);
}

/** Draw a picture into the middle of a canvas, as large as it fits. */
function drawWhole(canvas, side, picture) {
  const size = Math.max(picture.width, picture.height);
  draw(canvas, side, picture, (picture.width - size) / 2, (picture.height - size) / 2, size);
}
