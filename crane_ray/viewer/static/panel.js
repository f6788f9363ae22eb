// The panel beside the slide: heads with their predictions, facts, and the patches that stand out.

import { slideUrl } from "./api.js";
import { bar, find, make } from "./dom.js";
import { words } from "./list.js";
import { bytes, count } from "./scale.js";

const STATUS = { ok: "patched", no_tissue: "no tissue found", failed: "failed" };

/** The heads of a run as radio buttons, each with what its task says of the slide. */
export function showHeads(heads, current, predictions, onChosen) {
  const rows = heads.map((head) => {
    const [task, name] = [head.split(":")[0], head.slice(head.indexOf(":") + 1)];
    const said = predictions.find((one) => one.task === task);
    const label = head.includes(":") ? name : (said?.decision ?? "");
    const probability = said?.probabilities[said.classes.indexOf(label)];
    const known = probability !== undefined;
    const input = make("input", { type: "radio", name: "head", value: head, checked: head === current });
    input.addEventListener("change", () => onChosen(head));
    return make(
      "label",
      { class: "head" },
      input,
      make("span", { class: "name" }, words(head)),
      known ? make("span", { class: "decision" }, head.includes(":") ? "" : words(label)) : null,
      known ? bar(probability) : null,
      known ? make("span", { class: "number" }, probability.toFixed(2)) : null,
    );
  });
  find("heads").replaceChildren(...rows);
}

export function markHead(head) {
  for (const input of find("heads").querySelectorAll("input")) input.checked = input.value === head;
}

export function showDiagnosis(diagnosis) {
  find("diagnosis-section").hidden = !diagnosis.length;
  const rows = diagnosis.map((one) => {
    const probability = one.probabilities[one.classes.indexOf(one.decision)] ?? 0;
    return make(
      "div",
      { class: "head plain" },
      make("span", { class: "name" }, words(one.task)),
      make("span", { class: "decision" }, words(one.decision)),
      bar(probability),
      make("span", { class: "number" }, probability.toFixed(2)),
    );
  });
  find("diagnosis").replaceChildren(...rows);
}

export function showFacts(facts) {
  const rows = [
    ["Status", STATUS[facts.status] ?? facts.status],
    ["Why", facts.status === "ok" ? "" : facts.reason],
    ["Maps", facts.maps === "failed" ? `failed: ${facts.maps_reason}` : ""],
    ["Size", facts.width_px ? `${count(facts.width_px)} × ${count(facts.height_px)} px` : ""],
    ["Resolution", facts.mpp ? `${Number(facts.mpp.toPrecision(4))} µm/px` : facts.no_mpp],
    ["Objective", facts.power ? `${count(facts.power)}×` : ""],
    ["Patches", facts.num_patches === null ? "" : count(facts.num_patches)],
    ["Levels", facts.levels ?? ""],
    ["Format", facts.vendor ?? ""],
    ["File", facts.size ? bytes(facts.size) : ""],
  ];
  const shown = rows.filter(([, value]) => value !== "" && value !== undefined);
  find("facts").replaceChildren(...shown.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))));
}

/** The strips of patches with the highest and the lowest scores. */
export function showStrips(slideId, head, extremes, onChosen) {
  const side = Math.round(extremes.footprint_px);
  for (const which of ["top", "bottom"]) {
    const items = extremes[which].map((patch, rank) => {
      const percentile = (100 * patch.percentile).toFixed(1);
      const button = make(
        "button",
        {
          type: "button",
          title: `Patch at ${patch.x}, ${patch.y}: higher than ${percentile} % of the slide's patches`,
          "aria-label": `${which === "top" ? "Most" : "Least"} attended patch ${rank + 1} of ${words(head)}, percentile ${percentile}`,
        },
        make("img", {
          src: slideUrl(slideId, "/crop.jpg", { x: Math.max(0, patch.x), y: Math.max(0, patch.y), side }),
          alt: "", width: 72, height: 72, loading: "lazy", decoding: "async",
        }),
        make("span", {}, percentile),
      );
      button.addEventListener("click", () => onChosen(patch, side));
      return make("li", {}, button);
    });
    find(which).replaceChildren(...items);
  }
  find("top-title").textContent = `Most attended for ${words(head)}, by percentile`;
  find("bottom-title").textContent = `Least attended for ${words(head)}`;
}
