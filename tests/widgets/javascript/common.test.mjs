// What the widgets share, as far as it needs no page: bytes, colour, numbers in words.

import assert from "node:assert/strict";
import { test } from "node:test";

import { assign, clamp, codeOf, css, fitted, number, percent, pixels, progress, short, typed } from "../../../garcon_jupyter/widgets/common.js";
import { bytesOf, canvasOf, modelOf } from "./reading.mjs";

test("bytes are read wherever in a message they begin", () => {
  const values = Float32Array.from([1.5, -2, NaN]);
  for (const from of [0, 1, 2, 3, 4]) assert.deepEqual(typed(bytesOf(values, from), Float32Array), values);
  assert.deepEqual(typed(bytesOf(Int32Array.from([-1, 7]), 3), Int32Array), Int32Array.from([-1, 7]));
  assert.equal(typed(undefined, Float32Array).length, 0);
  assert.equal(typed(new DataView(new ArrayBuffer(0)), Uint8Array).length, 0);
  assert.equal(typed(new DataView(new ArrayBuffer(7)), Float32Array).length, 1); // what is too short for another
});

test("bytes that can be read in place are not copied", () => {
  const message = new ArrayBuffer(16);
  assert.equal(typed(new DataView(message, 4, 8), Float32Array).buffer, message);
  const palette = pixels(new DataView(message, 4, 8));
  palette[0] = 7;
  assert.equal(new Uint8Array(message)[4], 0); // a palette is a copy: it is drawn from for long
});

test("a colour's opacity is a share of the palette's, and at least so much", () => {
  const pixel = 0x80_dc_70_20; // opacity, blue, green, red
  assert.equal(css(pixel), "rgba(32,112,220,0.502)");
  assert.equal(css(pixel, 0.5), "rgba(32,112,220,0.251)");
  assert.equal(css(pixel, 0.5, 0.3), "rgba(32,112,220,0.300)");
  assert.equal(css(0xff_00_00_01), "rgba(1,0,0,1.000)");
});

test("colour is the same on both sides of zero", () => {
  for (let step = 0; step <= 254; step++) {
    const value = Math.fround(step / 254);
    assert.equal(codeOf(value, 1) - 128, 128 - codeOf(-value, 1), `${value}`);
  }
  assert.equal(codeOf(0, 0), 0); // nothing to scale by
});

test("a minus is a minus everywhere", () => {
  assert.equal(number(-1.5e-7), "−1.5e−7");
  assert.equal(number(-12), "−12");
  assert.equal(short(-0.5), "−0.50");
});

test("five figures unless fewer are asked for", () => {
  assert.equal(number(Math.PI), "3.1416");
  assert.equal(number(Math.PI, 3), "3.14");
  assert.equal(percent(Infinity), "–");
  assert.equal(clamp(NaN, 0, 1), NaN);
});

test("words are cut to the room there is, between characters", () => {
  const cut = (text, room) => {
    const { context, written } = canvasOf((said) => 10 * Array.from(said).length);
    fitted(context, text, 0, 0, room);
    return written[0];
  };
  assert.equal(cut("neuron", 60), "neuron");
  assert.equal(cut("neuron", 59), "neur…");
  assert.equal(cut("🙂🙂🙂", 25), "🙂…"); // not half of one
  assert.equal(cut("neuron", 5), "…");
});

test("traits that are set together are told once", () => {
  const model = modelOf({ head: 0, row: 0 });
  assign(model, { head: 2, row: 1 });
  assert.deepEqual([model.get("head"), model.get("row"), model.saved], [2, 1, 1]);
});

test("how far a picture is", () => {
  const said = (busy, filling, unfinished) => progress(modelOf({ busy, filling, unfinished }));
  assert.equal(said(false, false, ""), "");
  assert.equal(said(true, false, ""), " · computing …");
  assert.equal(said(true, true, "not finished"), " · computing …");
  assert.equal(said(false, false, "stopped, not finished"), " · stopped, not finished");
  assert.equal(said(true, false, "stopped, not finished"), " · stopped, not finished");
});
