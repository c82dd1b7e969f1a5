// @ts-check
import { clamp, codeOf, css, number, sized, typed } from "./common.js";

/**
 * The shown text's values as a histogram that stands on its side: values upwards, counts (on a
 * logarithmic axis) to the right. The selected cell's value is marked.
 *
 * @param {import("./traits").Model<import("./traits").Activations>} model
 * @param {{ beside: HTMLElement, histogram: HTMLCanvasElement, ink: import("./common").Ink }} page
 * @param {{ contrast: number, marked: () => number | undefined }} local
 * @param {Uint32Array} colours
 * @param {number} height
 */
export function drawHistogram(model, page, local, colours, height) {
  const counts = typed(model.get("counts"), Int32Array);
  page.beside.style.display = counts.length ? "" : "none";
  if (!counts.length) return;
  const width = 118;
  const [low, high] = model.get("spread");
  const context = sized(page.histogram, width, height + 18);
  const limit = model.get("limit") / local.contrast;
  const most = Math.log1p(Math.max(...counts));
  const [left, top, tall] = [44, 6, height - 12];
  /** @param {number} value */
  const y = (value) => top + tall * (1 - (value - low) / (high - low || 1));
  counts.forEach((count, bin) => {
    if (!count) return;
    const from = low + (bin / counts.length) * (high - low);
    const to = low + ((bin + 1) / counts.length) * (high - low);
    context.fillStyle = css(colours[clamp(codeOf((from + to) / 2, limit), 1, 255)], 1, 0.3);
    context.fillRect(left, y(to), (Math.log1p(count) / most) * (width - left - 2), Math.max(y(from) - y(to) - (tall / counts.length > 4 ? 1 : 0), 1));
  });
  context.fillStyle = page.ink.line;
  context.fillRect(left - 1, top, 1, tall);
  context.font = `10px ${page.ink.text}`;
  context.fillStyle = page.ink.soft;
  context.textAlign = "right";
  context.textBaseline = "middle";
  const near = 13;
  const places = [high, low].map((value) => [value, clamp(y(value), top + 5, top + tall - 5)]);
  if (low < 0 && high > 0 && Math.abs(y(0) - places[0][1]) > near && Math.abs(y(0) - places[1][1]) > near) places.push([0, y(0)]);
  for (const [value, at] of places) context.fillText(number(value, 3), left - 5, at);
  context.textAlign = "left";
  const counted = model.get("counted");
  context.fillText(`${counted.toLocaleString("en")} values`, 8, height + 10);
  page.histogram.setAttribute("aria-label", `histogram of ${counted} values from ${number(low)} to ${number(high)}`);
  const value = local.marked();
  if (value !== undefined && value >= low && value <= high) {
    context.fillStyle = page.ink.ink;
    context.fillRect(left - 4, y(value) - 0.75, width - left + 4, 1.5);
  }
}
