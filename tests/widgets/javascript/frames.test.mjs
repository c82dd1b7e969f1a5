// What is where in the activations widget: frames, pooled and sorted, and the pointer over them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { cellAt, columnAt, columnName, columnOf, frameOf, middleOf, strongest, unitAt, valueOf, wholeFrame } from "../../../garcon_jupyter/widgets/frames.js";
import { bytesOf, modelOf } from "./reading.mjs";

const UNITS = 10;

/** Two tokens × ten units whose value is 100 · token + unit, pooled by 2: a column shows its second unit. */
const pooled = (token) => Array.from({ length: UNITS / 2 }, (_, column) => 100 * token + 2 * column + 1);

const traits = {
  labels: ["a", "b"],
  units: UNITS,
  window: [0, UNITS],
  heads: 0,
  head: -1,
  unit_name: "neuron",
  order: bytesOf(new Int32Array(0)),
  frame: bytesOf(Float32Array.from([...pooled(0), ...pooled(1)])),
  pooled: 2,
  detail: bytesOf(Float32Array.from([4, 5, 6, 7, 104, 105, 106, 107])),
  detail_window: [4, 8],
  detail_pooled: 1,
  selected_unit: -1,
};
const page = { gutter: 50, width: 100, rowHeight: 20, scroller: { scrollTop: 0 } };

test("the finest frame that covers what is visible", () => {
  const whole = frameOf(modelOf(traits));
  assert.deepEqual([whole.first, whole.columns, whole.pooled], [0, 5, 2]);
  const fine = frameOf(modelOf({ ...traits, window: [5, 8] }));
  assert.deepEqual([fine.first, fine.columns, fine.pooled, fine.values[5]], [4, 4, 1, 105]);
  assert.equal(frameOf(modelOf({ ...traits, window: [3, 8] })).pooled, 2); // one unit too many
  assert.equal(frameOf(modelOf({ ...traits, window: [5, 8], detail_pooled: 0 })).pooled, 2); // there is none
});

test("a last column may be of fewer units", () => {
  const { columns } = wholeFrame(modelOf({ ...traits, units: 11, pooled: 4 }));
  assert.equal(columns, 3);
});

test("the strongest of a row: sign kept, the first of equals, NaN before all", () => {
  const frame = { values: Float32Array.from([9, 9, 9, 9, 1, -3, 3, 2, 1, NaN, Infinity, NaN]), columns: 4 };
  assert.equal(strongest(frame, 1, 0, 4), 1);
  assert.equal(strongest(frame, 1, 2, 4), 2);
  assert.equal(strongest(frame, 2, 0, 4), 1);
  assert.equal(strongest(frame, 2, 2, 3), 2);
});

test("the value of a unit, exact where a frame has it", () => {
  const model = modelOf({ ...traits, window: [4, 8] });
  assert.deepEqual(valueOf(model, 1, 6), { value: 106, pooled: 1, column: 6 });
  assert.deepEqual(valueOf(model, 1, 2), { value: 103, pooled: 2, column: 2 }); // outside of the detail
  assert.deepEqual(valueOf(model, 0, 3), { value: 3, pooled: 2, column: 2 });
});

test("sorted units stand in other columns", () => {
  const order = Int32Array.from([9, 0, 8, 1, 7, 2, 6, 3, 5, 4]);
  const model = modelOf({ ...traits, order: bytesOf(order) });
  for (let column = 0; column < UNITS; column++) assert.equal(columnOf(model, unitAt(model, column)), column);
  assert.equal(unitAt(model, 2), 8);
  assert.equal(unitAt(modelOf(traits), 2), 2);
});

test("the cell under the pointer", () => {
  const model = modelOf(traits);
  assert.deepEqual(cellAt(model, page, { offsetX: 50, offsetY: 25 }), { row: 1, column: 0, unit: 0, value: 101, pooled: 2 });
  assert.deepEqual(cellAt(model, page, { offsetX: 149, offsetY: 0 }), { row: 0, column: 8, unit: 8, value: 9, pooled: 2 });
  assert.equal(cellAt(model, page, { offsetX: 49, offsetY: 0 }), null); // on the labels
  assert.equal(cellAt(model, page, { offsetX: 150, offsetY: 0 }), null);
  assert.equal(cellAt(model, page, { offsetX: 60, offsetY: 40 }), null); // below the last token
  const scrolled = { ...page, scroller: { scrollTop: 20 } };
  assert.equal(cellAt(model, scrolled, { offsetX: 50, offsetY: 5 })?.row, 1);
});

test("several units under one pixel are the strongest of them", () => {
  const values = Float32Array.from([0, 1, -9, 2, 5, 0, 0, 0]);
  const model = modelOf({ ...traits, labels: ["a"], units: 8, window: [0, 8], frame: bytesOf(values), pooled: 1, detail_pooled: 0 });
  const cell = cellAt(model, { ...page, width: 2 }, { offsetX: 50, offsetY: 0 });
  assert.deepEqual([cell?.unit, cell?.value], [2, -9]);
});

test("places of the visible range", () => {
  const model = modelOf({ ...traits, window: [2, 6] });
  assert.equal(columnAt(model, page, 100), 4);
  assert.equal(columnAt(model, page, -1000), 2); // nothing is left of the first
  assert.equal(middleOf(model), 4);
  model.set("selected_unit", 5);
  assert.equal(middleOf(model), 5.5);
  model.set("selected_unit", 9);
  assert.equal(middleOf(model), 4); // it is out of sight
});

test("what a column is", () => {
  assert.equal(columnName(modelOf(traits)), "neuron");
  assert.equal(columnName(modelOf({ ...traits, heads: 9 })), "head");
  assert.equal(columnName(modelOf({ ...traits, heads: 9, head: 3 })), "neuron");
});
