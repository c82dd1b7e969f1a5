// What the browser's live pictures share with Python's still ones: colours, words, places, pooling. Both are held
// against the same JSON files; the other half of this test is test_contract.py.

import assert from "node:assert/strict";
import { test } from "node:test";

import { across, ofFirst } from "../../../garcon_jupyter/widgets/attention.js";
import { behindText, clamp, codeOf, colourTicks, fitted, number, percent, plural, short } from "../../../garcon_jupyter/widgets/common.js";
import { niceStep } from "../../../garcon_jupyter/widgets/drawing.js";
import { strongest } from "../../../garcon_jupyter/widgets/frames.js";
import { arrangement } from "../../../garcon_jupyter/widgets/overview.js";
import { canvasOf, contract } from "./reading.mjs";

test("codes", () => {
  for (const [value, limit, root, code] of contract("colours").codes) {
    assert.equal(codeOf(Number(value), limit, root), code, `${value} of ${limit}, root ${root}`);
  }
});

test("what stands behind text", () => {
  const { palette, behind_text } = contract("colours");
  const colours = new Uint32Array(new Uint8Array(palette.flat()).buffer);
  behind_text.forEach((said, code) => {
    const value = code ? (code - 128) / 127 : NaN;
    assert.equal(behindText(colours, value, 1), said, `code ${code}`);
  });
});

test("numbers", () => {
  const { figures, cells, percents, plurals } = contract("numbers");
  for (const [value, count, said] of figures) assert.equal(number(Number(value), count), said);
  for (const [value, said] of cells) assert.equal(short(Number(value)), said);
  for (const [value, said] of percents) assert.equal(percent(Number(value)), said);
  for (const [count, noun, said] of plurals) assert.equal(plural(count, noun), said);
});

test("ticks", () => {
  for (const [limit, root, said] of contract("numbers").ticks) assert.deepEqual(colourTicks(limit, root), said);
});

test("labels are cut as they are in Python, where every character is as wide", () => {
  for (const [label, room, said] of contract("labels").cut) {
    const { context, written } = canvasOf((text) => Array.from(text).length);
    fitted(context, label, 0, 0, room);
    assert.deepEqual(written, [said]);
  }
});

test("the overview is arranged", () => {
  for (const [layers, heads, width, blocks, , tile] of contract("layout").overview) {
    assert.deepEqual(arrangement(layers, heads, width), { blocks, tile }, `${layers} × ${heads} in ${width}`);
  }
});

test("rows of tiles and steps of an axis", () => {
  for (const [tiles, widest, said] of contract("layout").across) assert.equal(across(tiles, widest), said);
  assert.equal(across(0, 8), 1);
  for (const [least, said] of contract("layout").steps) assert.equal(niceStep(least), said);
});

test("a run of values is the strongest of them", () => {
  for (const [row, size, pooled] of contract("pooling").runs) {
    const frame = { values: Float32Array.from(row, Number), columns: row.length };
    const found = pooled.map((_, run) => frame.values[strongest(frame, 0, run * size, clamp((run + 1) * size, 0, row.length))]);
    assert.deepEqual(found, pooled.map((value) => Math.fround(Number(value))), `${row} by ${size}`);
  }
});

test("what is of the first token", () => {
  for (const [queries, keys, hidden] of contract("pooling").first_token) {
    const found = [];
    for (let query = 0; query < queries; query++) {
      for (let key = 0; key < keys; key++) if (ofFirst(queries, keys, query, key)) found.push([query, key]);
    }
    assert.deepEqual(found, hidden);
  }
});
