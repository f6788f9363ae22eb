"""How a search's trials look on its page, and what it does under a pointer."""

STYLE = """
.trials td { white-space: nowrap; }
.trials td, .trials th { padding-right: 11px; }
.trials { font-size: 13.5px; width: auto; min-width: min(100%, 560px); }
.trials th { white-space: normal; }
.sorts { cursor: pointer; }
.sorts::after { content: "\\a0\\2195"; color: #b4bac2; font-weight: 400; }
[aria-sort="ascending"] .sorts::after { content: "\\a0\\2191"; color: var(--ink); }
[aria-sort="descending"] .sorts::after { content: "\\a0\\2193"; color: var(--ink); }
tr.best td { font-weight: 600; }
tr.default td:first-child { box-shadow: -3px 0 0 var(--soft); }
td.off { color: var(--soft); }
td.changed { font-weight: 600; }
.mark { transition: opacity 0.12s; }
.alight .mark { opacity: 0.14; }
.alight .mark.lit { opacity: 1; }
.mark.lit > .curve { stroke-width: 4; }
tbody tr.lit td { background: #eef4f6; }
@media (prefers-reduced-motion: reduce) { .mark { transition: none; } }
@media print {
  .trials { font-size: 7pt; }
  .trials td { white-space: normal; overflow-wrap: break-word; }
  .trials td.n { white-space: nowrap; }
  .sorts::after { content: ""; }
}
"""

SCRIPT = """
"use strict";
(() => {
  const every = (query, root = document) => [...root.querySelectorAll(query)];
  const marks = new Map();
  for (const mark of every("[data-trial]")) {
    const key = mark.dataset.trial;
    marks.set(key, [...(marks.get(key) || []), mark]);
  }
  let lit = null;
  const show = (key) => {
    if (key === lit) return;
    for (const mark of marks.get(lit) || []) mark.classList.remove("lit");
    for (const mark of marks.get(key) || []) mark.classList.add("lit");
    document.body.classList.toggle("alight", key !== null);
    lit = key;
  };
  const trialOf = (event) => {
    const mark = event.target instanceof Element ? event.target.closest("[data-trial]") : null;
    return mark ? mark.dataset.trial : null;
  };
  document.addEventListener("pointerover", (event) => show(trialOf(event)));
  document.addEventListener("focusin", (event) => show(trialOf(event)));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") show(null); });

  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b, "en", { numeric: true });
  };
  const sort = (table, column, down) => {
    const value = (row) => row.cells[column].dataset.v;
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return down ? compare(y, x) : compare(x, y);
    }));
  };
  for (const table of every("table.trials")) {
    const heads = every("thead th", table);
    heads.forEach((head, column) => {
      const handle = document.createElement("span");
      handle.className = "sorts";
      handle.tabIndex = 0;
      handle.setAttribute("role", "button");
      handle.append(...head.childNodes);
      head.append(handle);
      const turn = () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, column, down);
      };
      handle.addEventListener("click", turn);
      handle.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        turn();
      });
    });
  }
})();
"""
