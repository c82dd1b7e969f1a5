// @ts-check
import { clamp, element, number, plural, token, typed } from "./common.js";

// What is where in the activations widget: which unit stands in which column (they differ while
// units are sorted), and which frame holds a value (activations.py says what a frame is).

/** @typedef {import("./traits").Model<import("./traits").Activations>} Model */
/** @typedef {{ values: Float32Array, first: number, columns: number, pooled: number }} Frame */
/** @typedef {{ row: number, column: number, unit: number, value: number, pooled: number }} Cell */
/** @typedef {{ gutter: number, width: number }} Sides where the cells begin, and how wide they are together */
/** @typedef {Sides & { rowHeight: number, scroller: { scrollTop: number } }} Rows */

/** @param {Model} model */
export const columnName = (model) => (model.get("heads") && model.get("head") < 0 ? "head" : model.get("unit_name"));

/**
 * @param {Model} model
 * @param {number} column
 */
export function unitAt(model, column) {
  const order = typed(model.get("order"), Int32Array);
  return order.length ? order[column] : column;
}

/**
 * @param {Model} model
 * @param {number} unit
 */
export function columnOf(model, unit) {
  const order = typed(model.get("order"), Int32Array);
  return order.length ? order.indexOf(unit) : unit;
}

/**
 * @param {Model} model
 * @param {Sides} page
 * @param {number} x
 */
export function columnAt(model, page, x) {
  const [first, end] = model.get("window");
  return first + clamp((x - page.gutter) / page.width, 0, 1) * (end - first);
}

/** @param {Model} model */
export function middleOf(model) {
  const [first, end] = model.get("window");
  const selected = columnOf(model, model.get("selected_unit"));
  return selected >= first && selected < end ? selected + 0.5 : (first + end) / 2;
}

// ---- frames -------------------------------------------------------------------------------------

/**
 * The finest frame that covers the visible range.
 *
 * @param {Model} model
 * @returns {Frame}
 */
export function frameOf(model) {
  const [first, end] = model.get("window");
  const [from, to] = model.get("detail_window");
  const pooled = model.get("detail_pooled");
  if (pooled && from <= first && end <= to) {
    return { values: typed(model.get("detail"), Float32Array), first: from, columns: Math.ceil((to - from) / pooled), pooled };
  }
  return wholeFrame(model);
}

/**
 * @param {Model} model
 * @returns {Frame}
 */
export function wholeFrame(model) {
  const pooled = model.get("pooled");
  return { values: typed(model.get("frame"), Float32Array), first: 0, columns: Math.ceil(model.get("units") / pooled), pooled };
}

/**
 * Index of the strongest value of row `row` in frame columns [from, to), as arrays.pool in Python: the first of
 * those equally strong, and NaN is stronger than anything.
 *
 * @param {Pick<Frame, "values" | "columns">} frame
 * @param {number} row
 * @param {number} from
 * @param {number} to
 */
export function strongest(frame, row, from, to) {
  const start = row * frame.columns;
  let best = from;
  let size = -1;
  for (let column = from; column < to; column++) {
    const here = Math.abs(frame.values[start + column]);
    if (Number.isNaN(here)) return column;
    if (here > size) [best, size] = [column, here];
  }
  return best;
}

/**
 * The cell under the pointer: the strongest of all units that share the pixel, as it is drawn.
 *
 * @param {Model} model
 * @param {Rows} page
 * @param {import("./common").Pointer} event
 * @returns {Cell | null}
 */
export function cellAt(model, page, event) {
  const row = Math.floor((event.offsetY + page.scroller.scrollTop) / page.rowHeight);
  if (event.offsetX < page.gutter || event.offsetX >= page.gutter + page.width) return null;
  if (row < 0 || row >= model.get("labels").length || !model.get("units")) return null;
  const frame = frameOf(model);
  /** @param {number} x */
  const place = (x) => (columnAt(model, page, x) - frame.first) / frame.pooled;
  const from = clamp(Math.floor(place(event.offsetX)), 0, frame.columns - 1);
  const to = clamp(Math.floor(place(event.offsetX + 1)), from + 1, frame.columns);
  const best = strongest(frame, row, from, to);
  const column = frame.first + best * frame.pooled;
  const value = frame.values[row * frame.columns + best];
  return { row, column, unit: unitAt(model, column), value, pooled: frame.pooled };
}

/**
 * Value of one unit, where pooled > 1 says it is the strongest of so many.
 *
 * @param {Model} model
 * @param {number} row
 * @param {number} unit
 */
export function valueOf(model, row, unit) {
  const column = columnOf(model, unit);
  let frame = frameOf(model);
  if (column < frame.first || column >= frame.first + frame.columns * frame.pooled) frame = wholeFrame(model);
  const place = Math.floor((column - frame.first) / frame.pooled);
  return { value: frame.values[row * frame.columns + place], pooled: frame.pooled, column: frame.first + place * frame.pooled };
}

/**
 * @param {Model} model
 * @param {number} row
 * @param {number} unit
 * @param {Pick<Cell, "value" | "pooled" | "column">} cell
 * @returns {import("./common").Nodes}
 */
export function words(model, row, unit, { value, pooled, column }) {
  const name = columnName(model);
  const what = pooled > 1
    ? model.get("order").byteLength ? `strongest of ${plural(pooled, name)}: ` : `strongest of ${plural(pooled, name)} from ${column}: `
    : `${name} ${unit}: `;
  return [token(model.get("labels")[row]), ` token ${row} · ${what}`, element("b", {}, number(value))];
}
