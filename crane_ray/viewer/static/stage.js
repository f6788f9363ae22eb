// The slide itself: OpenSeadragon's tiles, and over them the painted maps and marks.

import { slideUrl } from "./api.js";
import { find } from "./dom.js";
import { Marks } from "./marks.js";
import { PatchIndex, Painter } from "./painter.js";
import { count, magnification, scaleBar } from "./scale.js";

const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
const PAN_SHARE = 0.2; // of the window, for each press of an arrow key

export class Stage {
  constructor() {
    this.painter = new Painter(find("overlay"));
    this.marks = new Marks(find("marks"));
    this.facts = null;
    this.index = null;
    this.asked = null; // the place gone to last, until the user moves
    this.describeScore = () => "";
    this.onMoved = () => {};
    this.onProblem = () => {};
    this.osd = window.OpenSeadragon({
      element: find("osd"),
      drawer: "canvas",
      tabIndex: -1, // the stage around it is the one stop of the tab key
      showNavigationControl: false,
      showNavigator: true,
      navigatorPosition: "TOP_RIGHT",
      navigatorSizeRatio: 0.16,
      navigatorAutoFade: false,
      animationTime: calm.matches ? 0 : 0.35,
      springStiffness: 9,
      blendTime: 0,
      immediateRender: true,
      maxZoomPixelRatio: 4,
      minZoomImageRatio: 0.7,
      visibilityRatio: 0.3,
      zoomPerScroll: 1.25,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { pinchRotate: false },
      imageLoaderLimit: 6,
      timeout: 60000,
    });
    this.osd.canvas.append(find("overlay"), find("marks")); // beneath the small map
    this.osd.addHandler("update-viewport", () => this.paint());
    this.osd.addHandler("animation-finish", () => this.onMoved(this.centre()));
    // OpenSeadragon keeps its own idea of the zoom when the window or a strip takes room; what was
    // asked for is asked for again, unless the user has moved since.
    this.osd.addHandler("resize", () => queueMicrotask(() => this.asked && this.go(this.asked, true)));
    for (const moved of ["canvas-drag", "canvas-scroll", "canvas-pinch", "canvas-double-click", "navigator-click", "navigator-drag"]) {
      this.osd.addHandler(moved, () => (this.asked = null));
    }
    this.osd.addHandler("tile-load-failed", (event) => this.onProblem(event));
    this.osd.addHandler("canvas-key", (event) => (event.preventDefaultAction = true));
    const stage = find("stage");
    stage.addEventListener("pointermove", (event) => this.hover(event));
    stage.addEventListener("pointerleave", () => this.hover(null));
    calm.addEventListener("change", () => this.settle());
  }

  /** Shows a slide; resolves when it can be moved. */
  open(facts, place) {
    this.close();
    this.facts = facts;
    const { tile_px, min_level, max_level, version } = facts.tiles;
    const opened = new Promise((resolve) => this.osd.addOnceHandler("open", resolve));
    this.osd.open({
      width: facts.width_px,
      height: facts.height_px,
      tileSize: tile_px,
      tileOverlap: 0,
      minLevel: min_level,
      maxLevel: max_level,
      getTileUrl: (level, column, row) =>
        slideUrl(facts.slide_id, `/tiles/${level}/${column}_${row}.jpg`, { v: version }),
    });
    return opened.then(() => this.go(place, true));
  }

  close() {
    this.facts = this.index = this.asked = null;
    this.osd.close();
    this.painter.clear();
    this.marks.reset();
    this.marks.paint({ left: 0, top: 0, scale: 1 }, 1, 1);
    find("scale").hidden = true;
    find("readout").textContent = "";
  }

  /** Left and top in level-0 px, and screen px a level-0 px; null without a slide. */
  view() {
    if (!this.facts || !this.osd.world.getItemCount()) return null;
    const bounds = this.osd.viewport.getBounds(true);
    const side = this.facts.width_px;
    return {
      left: bounds.x * side,
      top: bounds.y * side,
      scale: this.osd.viewport.getContainerSize().x / (bounds.width * side),
    };
  }

  /** The centre of what is shown and its zoom. */
  centre() {
    if (!this.view()) return { x: null, y: null, zoom: null };
    const [middle, side] = [this.osd.viewport.getCenter(false), this.facts.width_px];
    const width = this.osd.viewport.getBounds(false).width * side;
    return { x: middle.x * side, y: middle.y * side, zoom: this.osd.viewport.getContainerSize().x / width };
  }

  /** Goes to a centre and zoom; to the whole slide where they are null. */
  go({ x, y, zoom }, atOnce = calm.matches) {
    if (!this.facts) return;
    this.asked = { x, y, zoom };
    const { viewport } = this.osd;
    if (zoom === null || x === null || y === null) {
      viewport.goHome(atOnce);
    } else {
      const side = this.facts.width_px;
      const width = viewport.getContainerSize().x / (zoom * side);
      viewport.zoomTo(1 / width, null, atOnce);
      viewport.panTo(new window.OpenSeadragon.Point(x / side, y / side), atOnce);
      viewport.applyConstraints(atOnce);
    }
    if (atOnce) this.osd.forceRedraw();
  }

  /** Goes to a patch so that it fills about a third of the window, and outlines it. */
  showPatch(patch, side) {
    this.marks.chosen = { x: patch.x, y: patch.y, side };
    const { x, y } = this.osd.viewport.getContainerSize();
    const zoom = Math.min(1, Math.min(x, y) / (3 * side));
    this.go({ x: patch.x + side / 2, y: patch.y + side / 2, zoom });
    this.paint();
  }

  zoomBy(factor) {
    if (!this.facts) return;
    this.asked = null;
    this.osd.viewport.zoomBy(factor, null, calm.matches);
    this.osd.viewport.applyConstraints(calm.matches);
  }

  pan(across, down) {
    if (!this.facts) return;
    this.asked = null;
    const bounds = this.osd.viewport.getBounds(false);
    const by = new window.OpenSeadragon.Point(across * PAN_SHARE * bounds.width, down * PAN_SHARE * bounds.height);
    this.osd.viewport.panBy(by, calm.matches);
    this.osd.viewport.applyConstraints(calm.matches);
  }

  setPlaces(places, cell, footprint) {
    const inset = (footprint - cell) / 2;
    this.painter.setPlaces(places, cell, inset);
    this.index = null;
    this.makeIndex = () => new PatchIndex(places, cell, inset);
  }

  settle() {
    this.osd.animationTime = this.osd.viewport.centerSpringX.animationTime = calm.matches ? 0 : 0.35;
  }

  paint() {
    const view = this.view();
    if (!view) return;
    const { x: width, y: height } = this.osd.viewport.getContainerSize();
    this.painter.paint(view, width, height);
    this.marks.paint(view, width, height);
    const { px, text } = scaleBar(view, this.facts.mpp);
    find("scale").hidden = false;
    find("scale-bar").style.width = `${px}px`;
    find("scale-text").textContent = text;
    this.say(view);
    const hint = find("hint");
    hint.hidden = !this.marks.gridTooFine(view);
    if (!hint.hidden) hint.textContent = "Zoom in to see the patch grid.";
  }

  hover(event) {
    const box = find("stage").getBoundingClientRect();
    this.pointer = event && { x: event.clientX - box.left, y: event.clientY - box.top };
    const view = this.view();
    if (view) this.say(view);
  }

  say(view) {
    const parts = [magnification(view, this.facts.mpp)];
    if (this.pointer) {
      const x = view.left + this.pointer.x / view.scale;
      const y = view.top + this.pointer.y / view.scale;
      parts.push(`${count(Math.round(x))}, ${count(Math.round(y))} px`);
      if (this.painter.scores) {
        this.index ??= this.makeIndex();
        const score = this.describeScore(this.index.at(x, y));
        if (score) parts.push(score);
      }
    }
    find("readout").textContent = parts.join("   ");
  }
}
