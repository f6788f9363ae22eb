// What is shown, as the address of the page says it: a copied address shows the same view.

import { MAPS } from "./colours.js";

export const FRESH = {
  slide: null,
  run: null,
  head: null,
  x: null, // centre, level-0 px
  y: null,
  zoom: null, // screen px a level-0 px
  opacity: 60,
  threshold: 0,
  colours: "cividis",
  kind: "percentile",
  overlay: true,
  grid: false,
  contours: false,
  labels: false,
};

const MARKS = ["overlay", "grid", "contours", "labels"];

/** The state that an address asks for; what it does not name stays as it is. */
export function parse(hash, current) {
  const [path, text = ""] = hash.replace(/^#\/?/, "").split("?");
  const asked = new URLSearchParams(text);
  const slide = path.startsWith("slide/") ? decoded(path.slice("slide/".length)) : null;
  const state = { ...current, slide };
  const same = slide === current.slide;
  state.run = asked.get("run") ?? current.run;
  state.head = asked.get("head") ?? current.head;
  for (const name of ["x", "y", "zoom"]) {
    state[name] = number(asked.get(name), -1e9, 1e9) ?? (same && !asked.size ? current[name] : null);
  }
  state.opacity = number(asked.get("opacity"), 0, 100) ?? current.opacity;
  state.threshold = number(asked.get("below"), 0, 99) ?? current.threshold;
  state.colours = asked.get("colours") in MAPS ? asked.get("colours") : current.colours;
  state.kind = ["percentile", "raw"].includes(asked.get("scores")) ? asked.get("scores") : current.kind;
  if (asked.has("on")) {
    const on = asked.get("on").split(" ");
    for (const mark of MARKS) state[mark] = on.includes(mark);
  }
  return state;
}

/** The address of a state. */
export function format(state) {
  if (!state.slide) return "#/";
  const said = new URLSearchParams();
  for (const name of ["run", "head"]) if (state[name]) said.set(name, state[name]);
  if (state.zoom !== null) {
    said.set("x", Math.round(state.x));
    said.set("y", Math.round(state.y));
    said.set("zoom", Number(state.zoom.toPrecision(4)));
  }
  said.set("opacity", state.opacity);
  if (state.threshold) said.set("below", state.threshold);
  said.set("colours", state.colours);
  if (state.kind !== FRESH.kind) said.set("scores", state.kind);
  said.set("on", MARKS.filter((mark) => state[mark]).join(" "));
  return `#/slide/${encodeURIComponent(state.slide)}?${said}`;
}

function number(text, low, high) {
  if (text === null || text.trim() === "") return null;
  const value = Number(text);
  return Number.isFinite(value) ? Math.min(Math.max(value, low), high) : null;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
