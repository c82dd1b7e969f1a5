// @ts-check
import { clamp, fitted, sized, typed } from "./common.js";

// A head as lines from each query token, on the left, to the key tokens that it looks at.

/** @typedef {{ query: number, key: number }} Pair a query and a key token; -1 for none */
/** @typedef {{ tall: number, left: number, right: number, queries: number, keys: number }} Lines where they are drawn */

/**
 * Which end is under the pointer, the other being -1.
 *
 * @param {Lines | null} lines
 * @param {import("./common").Pointer} event
 * @returns {Pair | null}
 */
export function lineAt(lines, event) {
  if (!lines) return null;
  const { tall, left, right, queries, keys } = lines;
  const row = Math.floor((event.offsetY - 4) / tall);
  if (event.offsetX <= left + 20 && row >= 0 && row < queries) return { query: row, key: -1 };
  if (event.offsetX >= right - 20 && row >= 0 && row < keys) return { query: -1, key: row };
  return null;
}

/**
 * Where the lines are drawn in so much room.
 *
 * @param {number} room
 * @param {number} queries
 * @param {number} keys
 * @returns {Lines & { side: number, width: number }}
 */
export function linesOf(room, queries, keys) {
  const tall = clamp(Math.floor(680 / Math.max(queries, keys)), 8, 22);
  const side = clamp(room * 0.22, 70, 150);
  const width = Math.min(room, 640);
  return { tall, left: side, right: width - side, queries, keys, side, width };
}

/**
 * @param {import("./traits").Model<import("./traits").Attention>} model
 * @param {{ detail: HTMLElement, matrix: HTMLCanvasElement, ink: import("./common").Ink, lines: Lines | null }} page
 * @param {{ over: Pair | null }} local
 * @param {(query: number, key: number) => boolean} hidden
 */
export function drawLines(model, page, local, hidden) {
  const [queryLabels, keyLabels] = [model.get("query_labels"), model.get("key_labels")];
  const [queries, keys] = [queryLabels.length, keyLabels.length];
  const room = page.detail.clientWidth;
  if (!room) return;
  const place = linesOf(room, queries, keys);
  const { tall, left, right, side, width } = place;
  page.lines = place;
  const font = `${clamp(tall * 0.75, 7, 12)}px ${page.ink.code}`;
  const context = sized(page.matrix, width, tall * Math.max(queries, keys) + 8);
  /** @param {number} row */
  const middle = (row) => 4 + (row + 0.5) * tall;
  const focus = local.over ?? { query: model.get("selected_query"), key: model.get("selected_key") };
  if (model.get("matrix_head") === model.get("selected_head")) {
    const weights = typed(model.get("matrix"), Float32Array);
    const limit = model.get("limit");
    context.strokeStyle = "rgb(32,112,220)";
    for (let query = 0; query < queries; query++) {
      if (focus.query >= 0 && focus.query !== query) continue;
      for (let key = 0; key < keys; key++) {
        if (focus.query < 0 && focus.key >= 0 && focus.key !== key) continue;
        const weight = weights[query * keys + key];
        if (hidden(query, key) || weight === -Infinity) continue; // which is masked
        const strength = clamp(Math.abs(weight) / limit, 0, 1);
        if (!(strength > 0.01)) continue; // too faint to see, or no number
        context.globalAlpha = Math.pow(strength, 0.8);
        context.lineWidth = 0.6 + 2.4 * strength;
        context.beginPath();
        context.moveTo(left, middle(query));
        context.bezierCurveTo(left + 50, middle(query), right - 50, middle(key), right, middle(key));
        context.stroke();
      }
    }
    context.globalAlpha = 1;
  }
  context.textBaseline = "middle";
  context.direction = "ltr";
  /**
   * @param {string[]} labels
   * @param {number} at
   * @param {CanvasTextAlign} align
   * @param {number} chosen
   */
  const write = (labels, at, align, chosen) => {
    context.textAlign = align;
    labels.forEach((label, row) => {
      const strong = row === chosen;
      context.font = strong ? `600 ${font}` : font;
      context.fillStyle = strong ? page.ink.ink : page.ink.soft;
      fitted(context, label, at, middle(row), side - 10);
    });
  };
  write(queryLabels, left - 6, "right", focus.query);
  write(keyLabels, right + 6, "left", focus.key);
}
