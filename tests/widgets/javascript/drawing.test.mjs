// The activations widget's drawing, as far as it needs no page: numbers of an axis, and its colours.

import assert from "node:assert/strict";
import { test } from "node:test";

import { niceStep, rowsInView } from "../../../garcon_jupyter/widgets/drawing.js";

test("numbers of an axis stand at 1, 2, 5, 10, 20, …", () => {
  assert.deepEqual([0, 1, 1.1, 2, 3, 5, 6, 11, 49, 51].map(niceStep), [1, 1, 2, 2, 5, 5, 10, 20, 50, 100]);
});

test("only the rows in view are drawn", () => {
  const page = { rowHeight: 20, scroller: { scrollTop: 0 } };
  const shown = (scrollTop, tokens, height) => rowsInView({ ...page, scroller: { scrollTop } }, tokens, height);
  assert.deepEqual(shown(0, 100, 430), [0, 22]);
  assert.deepEqual(shown(30, 100, 40), [1, 4]); // a part of a row is a row
  assert.deepEqual(shown(1990, 100, 40), [99, 100]);
  assert.deepEqual(shown(0, 2, 430), [0, 2]);
});
