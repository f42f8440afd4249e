"use strict";
// What the browser keeps of one grading, in localStorage: grades that were not sent yet, and marks.
// Each has a key of its own, so that windows never overwrite what another one keeps.

const LINE = "line ";

class Kept {
  constructor(fingerprint) {
    this.prefix = `lens_hpc ${fingerprint} `;
    this.window = Array.from(crypto.getRandomValues(new Uint8Array(6)), (byte) => (byte % 36).toString(36)).join("");
    this.count = 0;
    this.memory = new Map();
  }

  /** Names that begin with `kind`, sorted. */
  names(kind) {
    const stored = Object.keys(localStorage).filter((key) => key.startsWith(this.prefix));
    const names = [...stored.map((key) => key.slice(this.prefix.length)), ...this.memory.keys()];
    return names.filter((name) => name.startsWith(kind)).sort();
  }

  get(name) {
    return this.memory.get(name) ?? localStorage.getItem(this.prefix + name);
  }

  /** Keep a value; where the browser has no room, it is in memory alone and the page says so. */
  set(name, value) {
    try {
      localStorage.setItem(this.prefix + name, value);
    } catch {
      this.memory.set(name, value);
      byId("save").hidden = false;
      notice("This browser has no room for more grades: save them before you close this window.");
    }
  }

  remove(name) {
    this.memory.delete(name);
    localStorage.removeItem(this.prefix + name);
  }

  /** Keep a line; the names of lines are in the order of time. */
  addLine(line) {
    const number = String(this.count++).padStart(7, "0");
    this.set(`${LINE}${line.time} ${this.window} ${number}`, JSON.stringify(line));
  }

  /** Lines that are kept of one grader, the oldest first. */
  linesOf(grader) {
    const texts = this.names(LINE).map((name) => this.get(name));
    // Another window may have sent one in between.
    const lines = texts.filter((text) => text !== null).map((text) => JSON.parse(text));
    return lines.filter((line) => line.grader === grader);
  }
}
