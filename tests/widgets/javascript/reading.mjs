// What the tests read with: the shared JSON files, a model that holds its traits, a canvas that remembers.

import { readFileSync } from "node:fs";

/** A file of tests/widgets/contract. */
export function contract(name) {
  return JSON.parse(readFileSync(new URL(`../contract/${name}.json`, import.meta.url), "utf-8"));
}

/** A model with these traits, as anywidget's: it tells who listens, and remembers what was saved and sent. */
export function modelOf(traits) {
  const held = { ...traits };
  const listening = new Map();
  const model = {
    saved: 0,
    sent: [],
    get: (name) => held[name],
    set(name, value) {
      held[name] = value;
      for (const heard of listening.get(`change:${name}`) ?? []) heard();
    },
    save_changes: () => void model.saved++,
    send: (content) => void model.sent.push(content),
    on: (event, heard) => void listening.set(event, [...(listening.get(event) ?? []), heard]),
    off: (event, heard) => void listening.set(event, (listening.get(event) ?? []).filter((each) => each !== heard)),
    /** How many listen. */
    listeners: () => [...listening.values()].flat().length,
  };
  return model;
}

/** Numbers as a trait of bytes, which begin at an odd place of a larger message. */
export function bytesOf(values, from = 1) {
  const message = new Uint8Array(from + values.byteLength + 5);
  message.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), from);
  return new DataView(message.buffer, from, values.byteLength);
}

/** A canvas whose context writes down what is drawn on it: texts as such, the rest as [name, …arguments]. */
export function canvasOf(widthOf = (text) => 7 * text.length) {
  const written = [];
  const drawn = [];
  const context = new Proxy(
    {},
    {
      get(target, name) {
        if (name in target) return target[name];
        if (name === "measureText") return (text) => ({ width: widthOf(text) });
        if (name === "fillText") return (text) => void written.push(text);
        return (...args) => void drawn.push([name, ...args]);
      },
    },
  );
  return { context, written, drawn, canvas: { style: {}, width: 0, height: 0, getContext: () => context } };
}
