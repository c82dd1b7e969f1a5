import assert from "node:assert/strict";
import { test } from "node:test";

import { nearest, towards, within } from "../../../garcon_jupyter/widgets/dots.js";

const SPOTS = [{ x: 0, y: 0 }, { x: 10, y: 1 }, { x: 30, y: 0 }, { x: 9, y: 40 }];

test("the nearest dot is within reach, or none", () => {
  assert.equal(nearest(SPOTS, { x: 7, y: 0 }), 1);
  assert.equal(nearest(SPOTS, { x: 20, y: 20 }), -1);
  assert.equal(nearest([], { x: 0, y: 0 }), -1);
});

test("an arrow goes to the nearest dot of its quarter", () => {
  assert.equal(towards(SPOTS, 0, [1, 0]), 1);
  assert.equal(towards(SPOTS, 1, [1, 0]), 2);
  assert.equal(towards(SPOTS, 0, [0, 1]), 3);
  assert.equal(towards(SPOTS, 0, [-1, 0]), -1);
  assert.equal(towards(SPOTS, -1, [1, 0]), 0);
});

test("a line that is drawn around dots has them within, also where it turns inwards", () => {
  const hook = [{ x: -5, y: -5 }, { x: 35, y: -5 }, { x: 35, y: 5 }, { x: 20, y: 5 }, { x: 20, y: -2 }, { x: 5, y: -2 }, { x: 5, y: 5 }, { x: -5, y: 5 }];
  assert.deepEqual(SPOTS.map((spot) => within(hook, spot)), [true, false, true, false]);
});
