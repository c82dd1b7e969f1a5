// A grid: the words of its cells, and the cell under the pointer. Its first row is at the bottom.

import assert from "node:assert/strict";
import { test } from "node:test";

import { cellAt, sameColumns, valueAt, wordsAt } from "../../../garcon_jupyter/widgets/grid.js";
import { bytesOf, modelOf } from "./reading.mjs";

const sheet = {
  name: "probability",
  rows: ["0", "1"],
  columns: ["a", "b", "c"],
  row_name: "layer",
  column_name: "token",
  values: bytesOf(Float32Array.from([0, 1, 2, 10, 11, NaN])),
};
const traits = {
  sheets: [sheet, { ...sheet, columns: ["x", "y", "z"] }, { ...sheet, column_name: "head" }, { ...sheet, columns: ["a"] }],
  sheet: 0,
  words: ["yes", "no"],
  // Two choices a cell; -1 for none.
  tops: bytesOf(Int32Array.from([0, 1, 1, 0, 1, -1, -1, -1, 0, 1, 1, 0])),
  top_probabilities: bytesOf(Float32Array.from([0.5, 0.25, 0.75, 0.125, 1, 0, 0, 0, 0.5, 0.5, 0.25, 0.125])),
};

test("values and words of a cell", () => {
  assert.deepEqual([valueAt(sheet, 0, 2), valueAt(sheet, 1, 0), valueAt(sheet, 1, 2)], [2, 10, NaN]);
  const model = modelOf(traits);
  assert.deepEqual(wordsAt(model, 0, 1), [["no", 0.75], ["yes", 0.125]]);
  assert.deepEqual(wordsAt(model, 0, 2), [["no", 1]]);
  assert.deepEqual(wordsAt(model, 1, 0), []);
  assert.deepEqual(wordsAt(model, 1, 2), [["no", 0.25], ["yes", 0.125]]);
});

test("words of another grid are not read as this one's", () => {
  assert.deepEqual(wordsAt(modelOf({ ...traits, tops: bytesOf(Int32Array.from([0, 1, 1, 0])) }), 0, 1), []);
  assert.deepEqual(wordsAt(modelOf({ ...traits, tops: bytesOf(new Int32Array(0)) }), 0, 1), []);
});

test("the cell under the pointer", () => {
  const model = modelOf(traits);
  const page = { gutter: 40, above: 20, wide: 50, tall: 24 };
  assert.deepEqual(cellAt(model, page, { offsetX: 40, offsetY: 20 }), { row: 1, column: 0 });
  assert.deepEqual(cellAt(model, page, { offsetX: 189, offsetY: 67 }), { row: 0, column: 2 });
  assert.equal(cellAt(model, page, { offsetX: 39, offsetY: 20 }), null);
  assert.equal(cellAt(model, page, { offsetX: 190, offsetY: 20 }), null);
  assert.equal(cellAt(model, page, { offsetX: 40, offsetY: 19 }), null);
  assert.equal(cellAt(model, page, { offsetX: 40, offsetY: 68 }), null);
});

test("a selected column stays where the next sheet has the same columns", () => {
  const model = modelOf(traits);
  assert.deepEqual([0, 1, 2, 3].map((other) => sameColumns(model, other)), [true, true, false, false]);
});
