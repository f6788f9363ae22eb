// The controls and messages as a state has them; who changes the state is in main.js.

import { drawBar } from "./colours.js";
import { find, make } from "./dom.js";
import { count } from "./scale.js";

const MARKS = ["overlay", "grid", "contours", "labels"];

/** Sets every control, and the overlay's opacity, to a state. */
export function showControls(state) {
  find("opacity").value = state.opacity;
  find("opacity-text").textContent = `${state.opacity} %`;
  find("threshold").value = state.threshold;
  find("threshold-text").textContent = state.threshold ? `${state.threshold} %` : "nothing";
  find("colours").value = state.colours;
  find("kind").value = state.kind;
  for (const mark of MARKS) find(`on-${mark}`).checked = state[mark];
  drawBar(find("legend"), state.colours);
  find("overlay").style.opacity = state.overlay ? state.opacity / 100 : 0;
}

/** Calls back with what a control changes; the names are those of the state. */
export function bindControls(change) {
  const on = (id, event, changed) => find(id).addEventListener(event, ({ target }) => change(changed(target)));
  on("opacity", "input", ({ value }) => ({ opacity: Number(value) }));
  on("threshold", "input", ({ value }) => ({ threshold: Number(value) }));
  on("colours", "change", ({ value }) => ({ colours: value }));
  on("kind", "change", ({ value }) => ({ kind: value }));
  for (const mark of MARKS) on(`on-${mark}`, "change", ({ checked }) => ({ [mark]: checked }));
}

/** Makes the controls of a section usable, or not. */
export function able(section, on) {
  find(section).classList.toggle("off", !on);
  for (const input of find(section).querySelectorAll("input, select")) input.disabled = !on;
}

export function showLegend(kind, [low, high]) {
  find("legend-low").textContent = kind === "raw" ? count(low) : "lowest";
  find("legend-high").textContent = kind === "raw" ? count(high) : "highest";
}

export function showProblems(problems) {
  find("problems").hidden = !problems.length;
  find("problems").replaceChildren(...problems.map((text) => make("p", {}, text)));
}

let unsay = 0;

/** Says something on the slide: as trouble or not, for a while or until something else is said. */
export function say(text, trouble = false, forMs = 0) {
  clearTimeout(unsay);
  const message = find("message");
  message.hidden = !text;
  message.textContent = text;
  message.classList.toggle("trouble", trouble);
  message.classList.toggle("passing", forMs > 0);
  if (forMs) unsay = setTimeout(() => (message.hidden = true), forMs);
}

/** On narrow screens the list is a drawer. */
export function drawer(open) {
  document.body.classList.toggle("drawer", open);
  find("toggle-list").setAttribute("aria-expanded", String(open));
}

export const isDrawerOpen = () => document.body.classList.contains("drawer");
