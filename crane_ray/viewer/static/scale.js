// Lengths and magnifications in words.

const NICE = [1, 2, 5];
const MAX_BAR_PX = 150;

/** The longest round length that fits: { px on the screen, text }. */
export function scaleBar(view, mpp) {
  const unit = mpp ?? 1; // um, or pixels where no mpp is known
  const most = (MAX_BAR_PX / view.scale) * unit;
  const power = 10 ** Math.floor(Math.log10(most));
  const length = Math.max(...NICE.map((nice) => nice * power).filter((value) => value <= most));
  const text = mpp === null ? `${count(length)} px (no mpp)` : micrometres(length);
  return { px: (length / unit) * view.scale, text };
}

/** The objective that shows as much: 0.5 um a screen px is 20x; a share of the scan without mpp. */
export function magnification(view, mpp) {
  if (mpp === null) return `${(100 * view.scale).toPrecision(3)} % of the scan`;
  return `${Number(((10 / mpp) * view.scale).toPrecision(3))}×`;
}

export function count(value) {
  return value.toLocaleString("en", { maximumFractionDigits: 2 });
}

export function bytes(value) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(value, 1)) / 3));
  return `${Number((value / 1000 ** power).toPrecision(3))} ${units[power]}`;
}

function micrometres(length) {
  return length >= 1000 ? `${count(length / 1000)} mm` : `${count(length)} µm`;
}
