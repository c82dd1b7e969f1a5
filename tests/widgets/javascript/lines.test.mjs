// A head as lines: which are drawn, how strong, and which end is under the pointer.

import assert from "node:assert/strict";
import { test } from "node:test";

import { drawLines, lineAt, linesOf } from "../../../garcon_jupyter/widgets/lines.js";
import { bytesOf, canvasOf, modelOf } from "./reading.mjs";

globalThis.window = { devicePixelRatio: 2 };

// Three tokens; nobody looks ahead.
const WEIGHTS = Float32Array.from([1, 0, 0, 0.25, 0.75, 0, 0.005, 0.495, 0.5]);

const traits = {
  query_labels: ["a", "b", "c"],
  key_labels: ["a", "b", "c"],
  matrix: bytesOf(WEIGHTS),
  matrix_head: 1,
  selected_head: 1,
  selected_query: -1,
  selected_key: -1,
  limit: 1,
};

/** The lines that are drawn, as [query, key, width], and the page. */
function drawn(changes = {}, over = null, hidden = () => false) {
  const { canvas, drawn: done, written, context } = canvasOf();
  const page = { detail: { clientWidth: 500 }, matrix: canvas, ink: { code: "mono", ink: "#000", soft: "#888" }, lines: null };
  const widths = [];
  context.stroke = () => void widths.push(context.lineWidth);
  drawLines(modelOf({ ...traits, ...changes }), page, { over }, hidden);
  const row = (y) => Math.floor((y - 4) / page.lines.tall);
  const curves = done.filter(([name]) => name === "bezierCurveTo");
  const lines = curves.map(([, , from, , , , to], place) => [row(from), row(to), widths[place]]);
  return { lines, written, page, canvas };
}

test("a line for each weight that can be seen", () => {
  const { lines, written } = drawn();
  // 0.005 is too faint.
  assert.deepEqual(lines.map(([query, key]) => [query, key]), [[0, 0], [1, 0], [1, 1], [2, 1], [2, 2]]);
  lines.forEach(([query, key, width]) => assert.ok(Math.abs(width - (0.6 + 2.4 * WEIGHTS[3 * query + key])) < 1e-6));
  assert.deepEqual(written, ["a", "b", "c", "a", "b", "c"]);
});

test("masked scores are no lines, and negative ones are as strong as positive", () => {
  const scores = Float32Array.from([-4, -Infinity, NaN, 0, 0, 0, 0, 0, 8]);
  const { lines } = drawn({ matrix: bytesOf(scores), limit: 8 });
  // The wrong answer takes minus infinity for the strongest of all.
  assert.deepEqual(lines, [[0, 0, 0.6 + 2.4 * 0.5], [2, 2, 3]]);
});

test("only the lines of the token that is pointed at, else of the selected one", () => {
  const of = (changes, over) => drawn(changes, over).lines.map(([query, key]) => [query, key]);
  assert.deepEqual(of({ selected_query: 1 }, null), [[1, 0], [1, 1]]);
  assert.deepEqual(of({ selected_query: 1 }, { query: 2, key: -1 }), [[2, 1], [2, 2]]);
  assert.deepEqual(of({}, { query: -1, key: 1 }), [[1, 1], [2, 1]]);
});

test("what is hidden is not drawn, nor a head that is not here yet", () => {
  assert.deepEqual(drawn({}, null, (_, key) => key === 0).lines.map(([query, key]) => [query, key]), [[1, 1], [2, 1], [2, 2]]);
  const { lines, written } = drawn({ matrix_head: 0 });
  assert.deepEqual([lines.length, written.length], [0, 6]);
});

test("the canvas has the screen's resolution", () => {
  const { canvas, page } = drawn();
  assert.deepEqual([canvas.width, canvas.style.width], [2 * page.lines.width, `${page.lines.width}px`]);
});

test("lines in the room there is", () => {
  assert.deepEqual(linesOf(500, 3, 5), { tall: 22, left: 110, right: 390, queries: 3, keys: 5, side: 110, width: 500 });
  assert.equal(linesOf(2000, 3, 200).tall, 8); // as many as there are, each can be pointed at
  assert.deepEqual([linesOf(2000, 3, 3).width, linesOf(2000, 3, 3).side], [640, 150]);
});

test("the end under the pointer", () => {
  const lines = linesOf(500, 3, 5);
  assert.equal(lineAt(null, { offsetX: 0, offsetY: 10 }), null); // none are drawn yet
  assert.deepEqual(lineAt(lines, { offsetX: 100, offsetY: 4 }), { query: 0, key: -1 });
  assert.deepEqual(lineAt(lines, { offsetX: 400, offsetY: 4 + 22 * 4 }), { query: -1, key: 4 });
  assert.equal(lineAt(lines, { offsetX: 100, offsetY: 4 + 22 * 3 }), null); // below the last query
  assert.equal(lineAt(lines, { offsetX: 250, offsetY: 10 }), null); // between the two
  assert.equal(lineAt(lines, { offsetX: 100, offsetY: 3 }), null);
});
