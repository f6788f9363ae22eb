// Draws lines over the slide: patch grid, tissue contours with their numbers, the patch jumped to.

const MIN_GRID_PX = 5; // a finer grid is a grey smear
const TISSUE = "#00563b";
const HOLE = "#00429d";

export class Marks {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.reset();
  }

  reset() {
    this.grid = null; // { places, width, height }
    this.contours = null; // [{ outline: Path2D, holes: [Path2D], box }]
    this.chosen = null; // { x, y, side }
    this.on = { grid: false, contours: false, labels: false };
  }

  setContours(geojson) {
    this.contours = geojson.features.map((feature) => {
      const [outline, ...holes] = feature.geometry.coordinates;
      return { outline: path(outline), holes: holes.map(path), box: boxOf(outline) };
    });
  }

  /** True where the grid is asked for and too fine to be drawn. */
  gridTooFine(view) {
    return this.on.grid && this.grid && this.grid.width * view.scale < MIN_GRID_PX;
  }

  paint(view, width, height) {
    const ratio = window.devicePixelRatio || 1;
    const [columns, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== columns || this.canvas.height !== rows) {
      this.canvas.width = columns;
      this.canvas.height = rows;
    }
    const context = this.context;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, columns, rows);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (this.on.grid && this.grid && !this.gridTooFine(view)) this.drawGrid(view, width, height);
    if (this.on.contours && this.contours) this.drawContours(view, ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (this.chosen) this.drawChosen(view);
    if (this.on.labels && this.contours) this.drawLabels(view, width, height);
  }

  drawGrid(view, width, height) {
    const { places, width: patchWidth, height: patchHeight } = this.grid;
    const [across, down] = [patchWidth * view.scale, patchHeight * view.scale];
    const lines = new Path2D();
    for (let index = 0; index < places.length; index += 2) {
      const left = (places[index] - view.left) * view.scale;
      const top = (places[index + 1] - view.top) * view.scale;
      if (left < width && top < height && left + across > 0 && top + down > 0) lines.rect(left, top, across, down);
    }
    const faint = Math.min(1, across / 24);
    this.stroke(lines, `rgba(255,255,255,${0.75 * faint})`, 2.4);
    this.stroke(lines, `rgba(20,24,28,${0.35 + 0.4 * faint})`, 0.9);
  }

  drawContours(view, ratio) {
    const scale = view.scale * ratio;
    this.context.setTransform(scale, 0, 0, scale, -view.left * scale, -view.top * scale);
    for (const { outline, holes } of this.contours) {
      this.outlined(outline, TISSUE, view.scale);
      for (const hole of holes) this.outlined(hole, HOLE, view.scale, [6 / view.scale, 4 / view.scale]);
    }
    this.context.setLineDash([]);
  }

  outlined(line, colour, scale, dashes = []) {
    this.context.setLineDash([]);
    this.stroke(line, "rgba(255,255,255,.8)", 4 / scale);
    this.context.setLineDash(dashes);
    this.stroke(line, colour, 1.8 / scale);
  }

  drawChosen(view) {
    const side = this.chosen.side * view.scale;
    const box = new Path2D();
    box.rect((this.chosen.x - view.left) * view.scale, (this.chosen.y - view.top) * view.scale, side, side);
    this.stroke(box, "#fff", 5);
    this.stroke(box, "#111418", 2);
  }

  drawLabels(view, width, height) {
    const context = this.context;
    context.font = "600 13px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    this.contours.forEach(({ box }, number) => {
      const x = ((box[0] + box[2]) / 2 - view.left) * view.scale;
      const y = ((box[1] + box[3]) / 2 - view.top) * view.scale;
      if (x < 0 || y < 0 || x > width || y > height) return;
      context.lineWidth = 4;
      context.strokeStyle = "rgba(255,255,255,.9)";
      context.strokeText(`tissue ${number}`, x, y);
      context.fillStyle = "#111418";
      context.fillText(`tissue ${number}`, x, y);
    });
  }

  stroke(line, colour, width) {
    this.context.strokeStyle = colour;
    this.context.lineWidth = width;
    this.context.stroke(line);
  }
}

function path(ring) {
  const line = new Path2D();
  ring.forEach(([x, y], place) => (place ? line.lineTo(x, y) : line.moveTo(x, y)));
  line.closePath();
  return line;
}

function boxOf(ring) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [x, y] of ring) {
    box[0] = Math.min(box[0], x);
    box[1] = Math.min(box[1], y);
    box[2] = Math.max(box[2], x);
    box[3] = Math.max(box[3], y);
  }
  return box;
}
