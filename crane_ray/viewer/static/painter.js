// Paints the scores of patches over the slide, pixel by pixel of the screen.
//
// Every frame goes through all patches: 120,000 take a few ms, the same at every zoom, with exact
// edges and without one patch shining through another. Opacity is the canvas's own, so it costs
// nothing; colours and threshold cost one frame.

import { words } from "./colours.js";

const MAX_PIXEL_RATIO = 1.5; // sharper than this costs frames and shows nothing more

export class Painter {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.places = null;
    this.scores = null;
    this.threshold = 0;
    this.setColours("cividis");
  }

  /** Where the squares are: int32 x, y of each, their edge and how far inside their patch they lie. */
  setPlaces(places, cell, inset) {
    this.places = places;
    this.cell = cell;
    this.inset = inset;
    this.scores = null;
  }

  /** A score for each place; low and high get the first and the last colour. */
  setScores(scores, low, high) {
    this.scores = scores;
    this.low = low;
    this.high = high > low ? high : low + 1;
  }

  setColours(name) {
    this.words = words(name);
  }

  clear() {
    this.places = this.scores = null;
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** Paints for a view: left, top in level-0 px, and screen px a level-0 px. */
  paint(view, width, height) {
    const ratio = Math.min(window.devicePixelRatio || 1, MAX_PIXEL_RATIO);
    const columns = Math.max(1, Math.round(width * ratio));
    const rows = Math.max(1, Math.round(height * ratio));
    if (!this.image || this.image.width !== columns || this.image.height !== rows) {
      this.canvas.width = columns;
      this.canvas.height = rows;
      this.image = this.context.createImageData(columns, rows);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    this.pixels.fill(0);
    if (this.places && this.scores) this.fill(view, view.scale * ratio, columns, rows);
    this.context.putImageData(this.image, 0, 0);
  }

  fill(view, scale, columns, rows) {
    const { places, scores, pixels, cell, low, high } = this;
    const toStep = 255 / (high - low);
    const least = low + (high - low) * this.threshold;
    const left0 = (this.inset - view.left) * scale;
    const top0 = (this.inset - view.top) * scale;
    const edge = cell * scale;
    for (let index = 0; index < scores.length; index++) {
      const score = scores[index];
      if (!(score >= least)) continue; // neither below the threshold nor no number
      const left = places[2 * index] * scale + left0;
      const top = places[2 * index + 1] * scale + top0;
      if (left >= columns || top >= rows || left + edge <= 0 || top + edge <= 0) continue;
      const x0 = Math.max(0, Math.round(left));
      const y0 = Math.max(0, Math.round(top));
      const x1 = Math.min(columns, Math.max(Math.round(left + edge), Math.round(left) + 1));
      const y1 = Math.min(rows, Math.max(Math.round(top + edge), Math.round(top) + 1));
      const step = Math.min(255, Math.max(0, ((score - low) * toStep + 0.5) | 0));
      const word = this.words[step];
      for (let row = y0; row < y1; row++) {
        const start = row * columns;
        if (x1 - x0 > 12) pixels.fill(word, start + x0, start + x1);
        else for (let at = start + x0; at < start + x1; at++) pixels[at] = word;
      }
    }
  }
}

/** Finds the patch at a point. */
export class PatchIndex {
  constructor(places, cell, inset) {
    Object.assign(this, { places, cell, inset });
    this.bins = new Map();
    for (let index = 0; index < places.length / 2; index++) {
      const key = this.key(places[2 * index] + inset, places[2 * index + 1] + inset);
      const bin = this.bins.get(key);
      if (bin) bin.push(index);
      else this.bins.set(key, [index]);
    }
  }

  key(x, y) {
    return Math.floor(x / this.cell) + Math.floor(y / this.cell) * 1e7;
  }

  /** The number of the patch that is painted at a point, or -1. */
  at(x, y) {
    for (const [dx, dy] of [[0, 0], [1, 0], [0, 1], [1, 1]]) {
      for (const index of this.bins.get(this.key(x - dx * this.cell, y - dy * this.cell)) ?? []) {
        const [inX, inY] = [x - this.places[2 * index] - this.inset, y - this.places[2 * index + 1] - this.inset];
        if (inX >= 0 && inY >= 0 && inX < this.cell && inY < this.cell) return index;
      }
    }
    return -1;
  }
}
