// @ts-check
import { blit, clamp, codeOf, contextOf, css, element, fitted, inkOf, number, plural, sized } from "./common.js";
import { drawHistogram } from "./histogram.js";
import { columnName, columnOf, frameOf, strongest, unitAt, valueOf, wholeFrame, words } from "./frames.js";

// Drawing the activations widget: the cells on one canvas, the range under them on another.

/** @typedef {import("./frames").Model} Model */
/** @typedef {import("./activations").Page} Page */
/** @typedef {import("./activations").Local} Local */
/** @typedef {CanvasRenderingContext2D} Context */

const VIEWPORT = 430; // most height of the visible rows
const RANGE = 30; // height of the navigator under the picture

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @param {Uint32Array} colours
 */
export function draw(model, page, local, colours) {
  const labels = model.get("labels");
  const units = model.get("units");
  page.ink = inkOf(page.root);
  describe(model, page, labels, units);
  const room = page.scroller.clientWidth;
  if (!room) return;
  page.rowHeight = labels.length <= 2 ? 32 : labels.length <= 12 ? 24 : 18;
  const font = `${page.rowHeight > 20 ? 12.5 : 11.5}px ${page.ink.code}`;
  page.gutter = gutterOf(page, labels, font);
  page.width = Math.max(40, room - page.gutter - 1);
  const height = Math.min(labels.length * page.rowHeight, VIEWPORT);
  page.spacer.style.height = `${labels.length * page.rowHeight}px`;
  const context = sized(page.plot, room, Math.max(height, 1));
  if (labels.length && units) {
    drawCells(model, page, local, colours, context, height);
    drawLabels(model, page, local, context, labels, height, font);
    drawMarks(model, page, local, context, height);
    drawRange(model, page, local, colours);
  }
  local.marked = () => {
    const [token, unit] = [model.get("selected_token"), model.get("selected_unit")];
    return token >= 0 && token < labels.length && unit >= 0 && unit < units ? valueOf(model, token, unit).value : undefined;
  };
  drawHistogram(model, page, local, colours, Math.max(height, 120));
  page.bar(model.get("limit") / local.contrast, false);
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {string[]} labels
 * @param {number} units
 */
function describe(model, page, labels, units) {
  const sorted = model.get("sort_token");
  const selected = model.get("selected_token");
  const name = columnName(model);
  const [first, end] = model.get("window");
  const largest = model.get("largest");
  page.title.textContent = model.get("title") || "activations";
  const parts = [`${plural(labels.length, "token")} × ${plural(units, name)}`];
  if (name === "head" && model.get("heads")) parts.push("L2 norm, double-click opens a head");
  if (end - first < units) parts.push(`showing ${first.toLocaleString("en")} to ${(end - 1).toLocaleString("en")}`);
  if (largest > model.get("limit")) parts.push(`largest |value| ${number(largest, 3)}`);
  if (model.get("busy")) parts.push("fetching …");
  page.subtitle.textContent = labels.length && units ? parts.join(" · ") : `Nothing to draw: ${parts[0]}.`;
  page.rowChooser.select.value = String(model.get("row"));
  page.headChooser.select.value = String(model.get("head"));
  page.sort.textContent = sorted >= 0 ? `sorted at token ${sorted}` : "sort at token";
  page.sort.title = `order ${name}s by their value at the selected token (s)`;
  page.sort.setAttribute("aria-pressed", String(sorted >= 0));
  page.sort.disabled = sorted < 0 && selected < 0;
  page.sort.style.opacity = page.sort.disabled ? "0.5" : "1";
  page.zoom.style.display = units > 8 ? "" : "none";
  page.scroller.setAttribute("aria-label", `${page.title.textContent}: ${parts.join(", ")}. Arrow keys move the selected cell.`);
  page.readout.replaceChildren();
  const unit = model.get("selected_unit");
  if (model.get("trouble")) page.readout.append(element("span", { class: "garcon-trouble" }, model.get("trouble")));
  else if (selected >= 0 && selected < labels.length && unit >= 0 && unit < units) {
    page.readout.append(...words(model, selected, unit, valueOf(model, selected, unit)));
  } else {
    page.readout.append("Click a cell or use the arrow keys; drag, or Ctrl and the wheel, to zoom.");
  }
}

/**
 * @param {Page} page
 * @param {string[]} labels
 * @param {string} font
 */
function gutterOf(page, labels, font) {
  const context = contextOf(page.plot);
  context.font = font;
  let widest = 0;
  for (const label of labels.slice(0, 400)) widest = Math.max(widest, context.measureText(label.slice(0, 40)).width);
  return Math.round(clamp(widest + 14, 30, 170));
}

/**
 * The first row in view, and the first below it.
 *
 * @param {Pick<import("./frames").Rows, "rowHeight" | "scroller">} page
 * @param {number} tokens
 * @param {number} height
 */
export function rowsInView(page, tokens, height) {
  const first = Math.floor(page.scroller.scrollTop / page.rowHeight);
  return [clamp(first, 0, tokens), clamp(Math.ceil((page.scroller.scrollTop + height) / page.rowHeight), 0, tokens)];
}

/**
 * Cells of the rows in view: one image, each of its rows stretched to a row of the picture.
 *
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @param {Uint32Array} colours
 * @param {Context} context
 * @param {number} height
 */
function drawCells(model, page, local, colours, context, height) {
  const frame = frameOf(model);
  const limit = model.get("limit") / local.contrast;
  const [first, end] = model.get("window");
  const [top, bottom] = rowsInView(page, model.get("labels").length, height);
  const from = (first - frame.first) / frame.pooled;
  const to = Math.min((end - frame.first) / frame.pooled, frame.columns);
  const screen = Math.round(page.width * (window.devicePixelRatio || 1));
  const shared = to - from > screen; // several columns to one pixel
  const start = Math.floor(from);
  const columns = shared ? screen : Math.ceil(to) - start;
  const image = new ImageData(columns, bottom - top);
  const ink = new Uint32Array(image.data.buffer);
  for (let row = top; row < bottom; row++) {
    for (let column = 0; column < columns; column++) {
      const a = shared ? Math.floor(from + (column / screen) * (to - from)) : start + column;
      const b = shared ? Math.max(a + 1, Math.floor(from + ((column + 1) / screen) * (to - from))) : a + 1;
      const best = shared ? strongest(frame, row, a, Math.min(b, frame.columns)) : a;
      ink[(row - top) * columns + column] = colours[codeOf(frame.values[row * frame.columns + best], limit)];
    }
  }
  const y = top * page.rowHeight - page.scroller.scrollTop;
  blit(context, image, page.gutter, y, page.width, (bottom - top) * page.rowHeight, shared ? 0 : from - start, shared ? columns : to - from);
  for (let row = top + 1; row < bottom; row++) context.clearRect(page.gutter, row * page.rowHeight - page.scroller.scrollTop - 0.5, page.width, 1);
  const cell = page.width / (end - first);
  if (cell >= 7 && frame.pooled === 1) {
    for (let unit = 1; unit < end - first; unit++) context.clearRect(page.gutter + unit * cell - 0.5, 0, 1, height);
  }
  context.strokeStyle = page.ink.line;
  context.lineWidth = 1;
  context.strokeRect(page.gutter + 0.5, 0.5, page.width - 1, height - 1);
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @param {Context} context
 * @param {string[]} labels
 * @param {number} height
 * @param {string} font
 */
function drawLabels(model, page, local, context, labels, height, font) {
  const [top, bottom] = rowsInView(page, labels.length, height);
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.direction = "ltr";
  for (let row = top; row < bottom; row++) {
    const strong = row === model.get("selected_token") || row === local.over?.row;
    context.font = strong ? `600 ${font}` : font;
    context.fillStyle = row === model.get("sort_token") ? page.ink.accent : strong ? page.ink.ink : page.ink.soft;
    const y = (row + 0.5) * page.rowHeight - page.scroller.scrollTop;
    fitted(context, labels[row], page.gutter - 7, y, page.gutter - 10);
  }
}

/**
 * The selected cell, the cell under the pointer, and the range being dragged.
 *
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @param {Context} context
 * @param {number} height
 */
function drawMarks(model, page, local, context, height) {
  const [first, end] = model.get("window");
  const cell = page.width / (end - first);
  /**
   * @param {number} row
   * @param {number} column
   * @param {string} colour
   * @param {number} width
   */
  const outline = (row, column, colour, width) => {
    if (row < 0 || column < first || column >= end) return;
    const wide = Math.max(cell, 5);
    const x = page.gutter + (column + 0.5 - first) * cell - wide / 2;
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.strokeRect(x, row * page.rowHeight - page.scroller.scrollTop + 0.5, wide, page.rowHeight - 1);
  };
  if (local.over && !local.drag) outline(local.over.row, local.over.column, page.ink.soft, 1);
  outline(model.get("selected_token"), columnOf(model, model.get("selected_unit")), page.ink.ink, 2);
  if (local.drag) {
    context.globalAlpha = 0.18;
    context.fillStyle = page.ink.accent;
    context.fillRect(local.drag.from, 0, local.drag.to - local.drag.from, height);
    context.globalAlpha = 1;
  }
}

/**
 * Under the picture: unit numbers, and where the visible range lies in the whole.
 *
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @param {Uint32Array} colours
 */
function drawRange(model, page, local, colours) {
  const [first, end] = model.get("window");
  const units = model.get("units");
  const navigator = units > 64;
  const context = sized(page.range, page.gutter + page.width + 1, navigator ? 20 + RANGE : 20);
  const cell = page.width / (end - first);
  context.font = `10.5px ${page.ink.text}`;
  context.fillStyle = page.ink.soft;
  context.strokeStyle = page.ink.line;
  context.textAlign = "right";
  fitted(context, columnName(model), page.gutter - 7, 14, page.gutter - 8);
  context.textAlign = "center";
  const step = niceStep((end - first) * (46 / page.width));
  for (let column = Math.ceil(first / step) * step; column < end; column += step) {
    const x = page.gutter + (column + 0.5 - first) * cell;
    context.fillRect(x - 0.5, 0, 1, 4);
    context.fillText(String(unitAt(model, column)), clamp(x, page.gutter + 8, page.gutter + page.width - 8), 14);
  }
  if (navigator) drawNavigator(model, page, context, colours, local);
}

/**
 * The strongest value over all tokens at each place, as bars up (positive) and down.
 *
 * @param {Model} model
 * @param {Page} page
 * @param {Context} context
 * @param {Uint32Array} colours
 * @param {Local} local
 */
function drawNavigator(model, page, context, colours, local) {
  const frame = wholeFrame(model);
  const rows = model.get("labels").length;
  const limit = model.get("limit") / local.contrast;
  const [first, end] = model.get("window");
  const [units, top, half] = [model.get("units"), 20, RANGE / 2];
  const width = Math.round(page.width);
  for (let x = 0; x < width; x++) {
    const from = Math.floor((x / width) * frame.columns);
    const to = Math.max(from + 1, Math.floor(((x + 1) / width) * frame.columns));
    let [high, low] = [0, 0];
    for (let row = 0; row < rows; row++) {
      for (let column = from; column < to; column++) {
        const value = frame.values[row * frame.columns + column];
        if (value > high) high = value;
        if (value < low) low = value;
      }
    }
    context.fillStyle = css(colours[220]);
    context.fillRect(page.gutter + x, top + half - Math.min(1, high / limit) * half, 1, Math.min(1, high / limit) * half);
    context.fillStyle = css(colours[36]);
    context.fillRect(page.gutter + x, top + half, 1, Math.min(1, -low / limit) * half);
  }
  const [a, b] = [first, end].map((column) => page.gutter + (column / units) * page.width);
  context.fillStyle = page.ink.soft;
  context.globalAlpha = 0.22;
  context.fillRect(page.gutter, top, a - page.gutter, RANGE);
  context.fillRect(b, top, page.gutter + page.width - b, RANGE);
  context.globalAlpha = 1;
  context.strokeStyle = end - first < units ? page.ink.accent : page.ink.line;
  context.strokeRect(a + 0.5, top + 0.5, Math.max(b - a - 1, 2), RANGE - 1);
}

/**
 * The least round number (1, 2 or 5 times a power of ten) that is not below `least`, as numbers.round_step in Python.
 *
 * @param {number} least
 */
export function niceStep(least) {
  for (let power = 1; ; power *= 10) for (const part of [1, 2, 5]) if (part * power >= least) return part * power;
}
