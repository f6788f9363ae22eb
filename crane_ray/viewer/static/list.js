// The list of slides: search, filter, sort, and more of it as one scrolls.

import { json, query, slideUrl } from "./api.js";
import { bar, find, later, make } from "./dom.js";
import { count } from "./scale.js";

const PART = 60;
const PREDICTIONS_SHOWN = 4;
const STATUS = { no_tissue: "no tissue", failed: "failed" };

export class SlideList {
  constructor() {
    this.slides = [];
    this.matched = 0;
    this.run = null;
    this.current = null;
    this.asking = null;
    this.onLoaded = () => {};
    const reload = later(150, () => this.reload());
    find("search").addEventListener("input", reload);
    find("show").addEventListener("change", () => this.reload());
    find("sort").addEventListener("change", () => this.reload());
    find("filters").addEventListener("submit", (event) => event.preventDefault());
    new IntersectionObserver((entries) => entries[0].isIntersecting && this.more(), {
      rootMargin: "600px",
    }).observe(find("more"));
  }

  /** Offers the sort keys that the tasks of a run allow. */
  setTasks(tasks) {
    const kept = find("sort").value;
    const keys = [
      ["slide_id", "By name"],
      ["case_id", "By case"],
      ["status", "By status"],
      ["num_patches down", "Most patches first"],
      ...tasks.flatMap((task) =>
        task.classes.slice(task.classes.length === 2 ? 1 : 0)
          .map((name) => [`p:${task.name}:${name} down`, `Most probably ${name}`]),
      ),
    ];
    find("sort").replaceChildren(...keys.map(([value, text]) => make("option", { value }, text)));
    if (keys.some(([value]) => value === kept)) find("sort").value = kept;
  }

  async reload() {
    this.asking?.abort();
    this.asking = null;
    this.slides = [];
    this.matched = Infinity;
    await this.more(true);
  }

  async more(fresh = false) {
    if (this.asking || this.slides.length >= this.matched) return;
    const asking = (this.asking = new AbortController());
    const cards = find("cards");
    cards.setAttribute("aria-busy", "true");
    try {
      const answer = await json(`/api/slides${this.question()}`, asking.signal);
      if (fresh) cards.replaceChildren();
      this.slides.push(...answer.slides);
      this.matched = answer.matched;
      cards.append(...answer.slides.map((slide) => this.card(slide)));
      this.say(answer);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.matched = this.slides.length;
      find("count").textContent = error.message;
    } finally {
      if (this.asking === asking) this.asking = null;
      cards.removeAttribute("aria-busy");
    }
    this.onLoaded();
  }

  question() {
    const [sort, order] = find("sort").value.split(/ (?=down$)/);
    return query({
      q: find("search").value.trim(),
      show: find("show").value,
      sort,
      order,
      run: this.run,
      offset: this.slides.length,
      limit: PART,
    });
  }

  say({ total, matched }) {
    const slides = (number) => `${count(number)} ${number === 1 ? "slide" : "slides"}`;
    document.body.classList.toggle("nothing", !total);
    let text = matched === total ? slides(total) : `${count(matched)} of ${slides(total)}`;
    if (!total) text = "This workspace has no slides yet. crane-ray patch --slides FOLDER --work WORK lists them here.";
    else if (!matched) text = `None of ${slides(total)} matches. Clear the search or show all slides.`;
    find("count").textContent = text;
  }

  mark(slideId) {
    this.current = slideId;
    for (const card of find("cards").children) {
      const here = card.dataset.slide === slideId;
      const link = card.firstElementChild;
      if (here) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
      if (here) card.scrollIntoView({ block: "nearest" });
    }
  }

  /** The slide so many places further in the list; null at its ends. */
  async beside(slideId, step) {
    const place = this.slides.findIndex((slide) => slide.slide_id === slideId);
    if (place + step >= this.slides.length) await this.more();
    if (place < 0) return this.slides[0]?.slide_id ?? null;
    return this.slides[place + step]?.slide_id ?? null;
  }

  card(slide) {
    const href = `#/slide/${encodeURIComponent(slide.slide_id)}`;
    const current = slide.slide_id === this.current;
    return make(
      "li",
      { class: `card ${slide.status}`, "data-slide": slide.slide_id },
      make(
        "a",
        { href, "aria-current": current ? "true" : null },
        thumbnail(slide),
        make(
          "span",
          { class: "text" },
          make("strong", { title: slide.slide_id }, slide.slide_id),
          slide.case_id && slide.case_id !== slide.slide_id ? make("span", { class: "case" }, slide.case_id) : null,
          facts(slide),
          predictions(slide),
        ),
      ),
    );
  }
}

function thumbnail(slide) {
  const frame = make("span", { class: "thumbnail" });
  const image = make("img", { src: slideUrl(slide.slide_id, "/thumbnail.jpg"), alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.remove());
  frame.append(image);
  return frame;
}

function facts(slide) {
  if (slide.status !== "ok") {
    const word = STATUS[slide.status] ?? slide.status;
    return make("span", { class: "trouble", title: slide.reason }, make("b", {}, word), slide.reason ? ` ${slide.reason}` : "");
  }
  const patches = slide.num_patches ?? 0;
  const said = [`${count(patches)} ${patches === 1 ? "patch" : "patches"}`];
  if (slide.maps === "failed") said.push("maps failed");
  else if (!slide.maps) said.push("no maps");
  return make("span", { class: "facts", title: slide.maps_reason }, said.join(", "));
}

function predictions(slide) {
  if (!slide.predictions.length) return null;
  const shown = slide.predictions.slice(0, PREDICTIONS_SHOWN).map((one) => {
    const probability = one.probabilities[one.classes.indexOf(one.decision)] ?? 0;
    return make(
      "span",
      { class: "prediction", title: `${one.task}: ${one.decision}, probability ${probability.toFixed(3)}` },
      make("span", { class: "decision" }, words(one.decision)),
      bar(probability),
      make("span", { class: "number" }, probability.toFixed(2)),
    );
  });
  return make("span", { class: "predictions" }, ...shown);
}

export const words = (name) => name.replaceAll("_", " ").replace(":", ": ");
