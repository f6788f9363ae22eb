// Brings the parts together: the address decides what is shown, and what is shown writes the address.

import { buffer, json, slideUrl } from "./api.js";
import { MAPS, drawBar } from "./colours.js";
import { find, later, make } from "./dom.js";
import { listen } from "./keys.js";
import { SlideList, words } from "./list.js";
import { markHead, showDiagnosis, showFacts, showHeads, showStrips } from "./panel.js";
import { count } from "./scale.js";
import { Stage } from "./stage.js";
import { FRESH, format, parse } from "./state.js";

const EXTREMES = 12;

let state = { ...FRESH };
let workspace = { runs: [] };
let facts = null;
let loading = new AbortController();
let scoresNow = null; // { head, kind, values }
let stage = null;
const list = new SlideList();

async function start() {
  for (const [name, { label }] of Object.entries(MAPS)) find("colours").append(make("option", { value: name }, label));
  try {
    workspace = await json("/api/workspace");
  } catch (error) {
    showProblems([error.message]);
    return;
  }
  document.title = `${workspace.name}: crane-ray view`;
  find("workspace-name").textContent = workspace.name;
  find("workspace-name").title = workspace.folder;
  showProblems(workspace.problems);
  find("run").append(...workspace.runs.map((run) => make("option", { value: run.name }, run.name)));
  find("run-choice").hidden = workspace.runs.length < 2;
  bindControls();
  listen(actions, () => state.slide !== null);
  window.addEventListener("popstate", follow);
  list.onLoaded = () => list.mark(state.slide);
  await follow();
}

/** Shows what the address says. */
async function follow() {
  const before = state;
  state = parse(location.hash, state);
  if (!workspace.runs.some((run) => run.name === state.run)) state.run = workspace.runs[0]?.name ?? null;
  const newRun = state.run !== list.run || !list.slides.length;
  if (newRun) {
    list.run = state.run;
    if (state.run) find("run").value = state.run;
    list.setTasks(run()?.tasks ?? []);
    list.reload();
  }
  showControls();
  closeDrawer();
  if (!state.slide) showList();
  else if (state.slide !== before.slide || newRun || !facts) await showSlide();
  else {
    stage?.go(state);
    await showHead();
  }
}

function run() {
  return workspace.runs.find((one) => one.name === state.run) ?? null;
}

function showList() {
  document.body.dataset.view = "list";
  find("viewer").hidden = find("panel").hidden = true;
  document.title = `${workspace.name}: crane-ray view`;
  facts = null;
  list.mark(null);
  stage?.close();
}

async function showSlide() {
  loading.abort();
  const asking = (loading = new AbortController());
  const slideId = state.slide;
  document.body.dataset.view = "slide";
  find("viewer").hidden = find("panel").hidden = false;
  document.title = `${slideId}: crane-ray view`;
  find("slide-name").textContent = slideId;
  find("slide-case").textContent = "";
  facts = null;
  scoresNow = null;
  stage ??= makeStage();
  stage.close();
  find("strips").hidden = true;
  say("Opening the slide.");
  list.mark(slideId);
  try {
    const found = await json(slideUrl(slideId, "", { run: state.run }), asking.signal);
    facts = found;
    showFound();
    if (!found.tiles) return say(found.problem, true);
    await stage.open(found, state);
    say("");
    await Promise.all([loadMap(asking.signal), loadMarks(asking.signal)]);
  } catch (error) {
    if (error.name === "AbortError") return;
    say(error.message, true);
    if (!facts) showNothing();
  }
}

/** A slide of which nothing is known: the address names none of the workspace. */
function showNothing() {
  find("stage").classList.add("empty");
  find("panel").hidden = true;
}

function showFound() {
  const other = facts.case_id && facts.case_id !== facts.slide_id;
  find("slide-case").textContent = other ? `Case ${facts.case_id}` : "";
  showFacts(facts);
  showDiagnosis(facts.diagnosis);
  const heads = facts.maps === "ok" ? (run()?.heads ?? []) : [];
  if (!heads.includes(state.head)) state.head = heads[0] ?? state.head;
  showHeads(heads, state.head, facts.predictions, (head) => change({ head }, true));
  able("controls", heads.length > 0);
  able("marks-section", Boolean(facts.tiles));
  find("stage").classList.toggle("empty", !facts.tiles);
  find("strips").hidden = !heads.length; // takes its room before the slide is fitted into the rest
  find("heads-note").textContent = headsNote(heads);
}

function able(section, on) {
  find(section).classList.toggle("off", !on);
  for (const input of find(section).querySelectorAll("input, select")) input.disabled = !on;
}

function headsNote(heads) {
  if (heads.length) return `By ${run().model}: mean of its networks, uncalibrated.${run().dense ? " Dense maps: patches overlap." : ""}`;
  if (facts.maps === "failed") return `No maps of this slide: ${facts.maps_reason}`;
  return run() ? `No maps of this slide in ${state.run}.` : "No maps yet: crane-ray heatmap makes them.";
}

async function loadMap(signal) {
  if (facts.maps !== "ok") return;
  const asked = { run: state.run };
  const [map, places] = await Promise.all([
    json(slideUrl(facts.slide_id, "/map", asked), signal),
    buffer(slideUrl(facts.slide_id, "/map/places", asked), signal),
  ]);
  facts.map = map;
  stage.setPlaces(new Int32Array(places.data), map.cell_px, map.footprint_px);
  await showHead(signal);
}

async function showHead(signal = loading.signal) {
  markHead(state.head);
  if (!facts?.map) return stage?.paint();
  const { head, kind } = state;
  const asked = { run: state.run, head };
  if (scoresNow?.head !== head || scoresNow.kind !== kind) {
    try {
      const found = await buffer(slideUrl(facts.slide_id, "/map/scores", { ...asked, kind }), signal);
      if (head !== state.head || kind !== state.kind) return;
      const newHead = scoresNow?.head !== head;
      scoresNow = { head, kind, values: new Float32Array(found.data) };
      const range = kind === "raw" ? facts.map.raw_ranges[facts.map.heads.indexOf(head)] : [0, 1];
      stage.painter.setScores(scoresNow.values, ...(range ?? [0, 1]));
      showLegend(range ?? [0, 1]);
      stage.paint();
      if (newHead) {
        const extremes = await json(slideUrl(facts.slide_id, "/map/extremes", { ...asked, count: EXTREMES }), signal);
        if (head === state.head) showStrips(facts.slide_id, head, extremes, (patch, side) => stage.showPatch(patch, side));
      }
    } catch (error) {
      if (error.name !== "AbortError") say(error.message, true);
    }
  }
  stage.paint();
}

async function loadMarks(signal) {
  const { slide_id, marks } = facts;
  const lacking = [];
  if ((state.contours || state.labels) && !marks.contours) lacking.push("tissue contours");
  if (state.grid && !marks.patches) lacking.push("patches");
  if (lacking.length) say(`No ${lacking.join(" and no ")} of this slide.`, false, 5000);
  if ((state.contours || state.labels) && marks.contours && !stage.marks.contours) {
    await orHint(async () => stage.marks.setContours(await json(slideUrl(slide_id, "/contours"), signal)));
  }
  if (state.grid && marks.patches && !stage.marks.grid) {
    await orHint(async () => {
      const found = await buffer(slideUrl(slide_id, "/patches"), signal);
      const [width, height] = found.headers.get("X-Footprint-Px").split(" ").map(Number);
      stage.marks.grid = { places: new Int32Array(found.data), width, height };
    });
  }
  if (facts?.slide_id === slide_id) showControls();
}

/** Marks that are missing are said on the slide, which can be looked at all the same. */
async function orHint(action) {
  try {
    await action();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true, 8000);
  }
}

function makeStage() {
  const made = new Stage();
  made.onMoved = later(150, (centre) => {
    if (!facts?.tiles) return;
    Object.assign(state, centre);
    history.replaceState(null, "", format(state));
  });
  made.onProblem = later(300, async ({ tile }) => {
    const slideId = facts?.slide_id;
    const words_ = await json(tile.getUrl()).then(() => "A tile came late; move to load it again.", (error) => error.message);
    if (slideId && slideId === facts?.slide_id) say(words_, true, 12000);
  });
  made.describeScore = (place) => {
    if (place < 0 || !scoresNow) return "";
    const value = scoresNow.values[place];
    const name = words(scoresNow.head);
    return scoresNow.kind === "raw" ? `${name} ${value.toPrecision(4)}` : `${name}: above ${(100 * value).toFixed(0)} % of patches`;
  };
  return made;
}

/** Changes the state by a control; a step that one goes back over is a new entry of the history. */
function change(changed, step = false) {
  if (step && state.slide) history.pushState(null, "", format({ ...state, ...changed }));
  Object.assign(state, changed);
  if (!step && state.slide) history.replaceState(null, "", format(state));
  showControls();
  if ("head" in changed || "kind" in changed) showHead();
  if (facts?.tiles) loadMarks(loading.signal);
}

function showControls() {
  find("opacity").value = state.opacity;
  find("opacity-text").textContent = `${state.opacity} %`;
  find("threshold").value = state.threshold;
  find("threshold-text").textContent = state.threshold ? `${state.threshold} %` : "nothing";
  find("colours").value = state.colours;
  find("kind").value = state.kind;
  for (const mark of ["overlay", "grid", "contours", "labels"]) find(`on-${mark}`).checked = state[mark];
  drawBar(find("legend"), state.colours);
  find("overlay").style.opacity = state.overlay ? state.opacity / 100 : 0;
  if (!stage) return;
  stage.painter.threshold = state.threshold / 100;
  stage.painter.setColours(state.colours);
  Object.assign(stage.marks.on, { grid: state.grid, contours: state.contours, labels: state.labels });
  stage.paint();
}

function showLegend([low, high]) {
  const raw = state.kind === "raw";
  find("legend-low").textContent = raw ? count(low) : "lowest";
  find("legend-high").textContent = raw ? count(high) : "highest";
}

function showProblems(problems) {
  find("problems").hidden = !problems.length;
  find("problems").replaceChildren(...problems.map((text) => make("p", {}, text)));
}

let unsay = 0;
function say(text, trouble = false, forMs = 0) {
  clearTimeout(unsay);
  const message = find("message");
  message.hidden = !text;
  message.textContent = text;
  message.classList.toggle("trouble", trouble);
  message.classList.toggle("passing", forMs > 0);
  if (forMs) unsay = setTimeout(() => (message.hidden = true), forMs);
}

async function step(by) {
  const next = await list.beside(state.slide, by);
  if (next !== null && next !== state.slide) location.hash = `#/slide/${encodeURIComponent(next)}`;
}

function stepHead(by) {
  const heads = facts?.map?.heads ?? [];
  if (heads.length) change({ head: heads[(heads.indexOf(state.head) + by + heads.length) % heads.length] }, true);
}

function nextColours() {
  const names = Object.keys(MAPS);
  change({ colours: names[(names.indexOf(state.colours) + 1) % names.length] });
}

const toggle = (name) => () => change({ [name]: !state[name] });
const moreOpaque = (by) => () => change({ opacity: Math.min(100, Math.max(0, state.opacity + by)) });

const actions = {
  ArrowLeft: () => stage?.pan(-1, 0),
  ArrowRight: () => stage?.pan(1, 0),
  ArrowUp: () => stage?.pan(0, -1),
  ArrowDown: () => stage?.pan(0, 1),
  "+": () => stage?.zoomBy(1.5),
  "=": () => stage?.zoomBy(1.5),
  "-": () => stage?.zoomBy(1 / 1.5),
  0: () => stage?.go({ x: null, y: null, zoom: null }),
  "[": () => stepHead(-1),
  "]": () => stepHead(1),
  j: () => step(1),
  k: () => step(-1),
  h: toggle("overlay"),
  g: toggle("grid"),
  c: toggle("contours"),
  l: toggle("labels"),
  m: nextColours,
  ",": moreOpaque(-10),
  ".": moreOpaque(10),
  "/": () => {
    openDrawer();
    find("search").focus();
  },
  "?": () => find("help").showModal(),
  Escape: () => (location.hash = "#/"),
};

function bindControls() {
  const on = (id, event, action) => find(id).addEventListener(event, action);
  on("opacity", "input", (event) => change({ opacity: Number(event.target.value) }));
  on("threshold", "input", (event) => change({ threshold: Number(event.target.value) }));
  on("colours", "change", (event) => change({ colours: event.target.value }));
  on("kind", "change", (event) => change({ kind: event.target.value }));
  for (const mark of ["overlay", "grid", "contours", "labels"]) on(`on-${mark}`, "change", toggle(mark));
  on("run", "change", (event) => {
    const chosen = { ...state, run: event.target.value };
    if (state.slide) {
      location.hash = format(chosen);
    } else {
      state = chosen;
      follow();
    }
  });
  on("zoom-in", "click", actions["+"]);
  on("zoom-out", "click", actions["-"]);
  on("fit", "click", actions[0]);
  on("previous", "click", actions.k);
  on("next", "click", actions.j);
  on("open-help", "click", actions["?"]);
  on("toggle-list", "click", () => (document.body.classList.contains("drawer") ? closeDrawer() : openDrawer()));
  on("skip", "click", (event) => {
    event.preventDefault();
    (state.slide ? find("stage") : find("search")).focus();
  });
}

function openDrawer() {
  document.body.classList.add("drawer");
  find("toggle-list").setAttribute("aria-expanded", "true");
}

function closeDrawer() {
  document.body.classList.remove("drawer");
  find("toggle-list").setAttribute("aria-expanded", "false");
}

start();
