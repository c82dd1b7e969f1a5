// @ts-check
import { bars, blit, button, clamp, codeOf, element, fitted, inkOf, number, pixels, plural, redrawn, sized, tip, token, typed } from "./common.js";

// A text, edits with sliders, and what becomes of the prediction. Python computes when `text` or
// `edits` change; while it does, the old picture stands, a little paler.

/** @typedef {import("./traits").Model<import("./traits").Live>} Model */
/** @typedef {import("./traits").Edit} Edit */
/** @typedef {import("./traits").Strip} Strip */
/** @typedef {ReturnType<typeof layout>} Page */
/** @typedef {(place: number, values: Partial<Edit>, delay?: number) => void} Change */
/** @typedef {<Name extends keyof import("./traits").Live>(name: Name, value: import("./traits").Live[Name], delay?: number) => void} Later */

/** @type {(keyof import("./traits").Live)[]} */
const TRAITS = ["title", "pieces", "predictions", "strips", "milliseconds", "busy", "trouble"];

/** @param {import("./traits").Place<import("./traits").Live>} place */
function render({ model, el }) {
  const colours = pixels(model.get("palette"));
  const page = layout(model);
  const local = { later: /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined), changed: false };
  el.append(page.root);
  const get = model.get.bind(model);
  /** @type {Later} */
  const set = (name, value, delay = 0) => {
    model.set(name, value);
    // A key or a slider's step is not yet the wish: Python hears when the hand slows down.
    clearTimeout(local.later);
    local.later = setTimeout(() => model.save_changes(), delay);
  };
  const drawing = redrawn(model, page.root, TRAITS, () => draw(model, page, local, colours));
  /** @type {Change} */
  const change = (place, values, delay) => set("edits", get("edits").map((edit, at) => (at === place ? { ...edit, ...values } : edit)), delay);
  const list = () => {
    // A slider under the hand stays the same element.
    const edits = get("edits");
    while (page.rows.length > edits.length) page.rows.pop()?.node.remove();
    while (page.rows.length < edits.length) page.rows.push(editRow(model, page, page.rows.length, change, set));
    edits.forEach((edit, place) => page.rows[place].show(edit));
  };
  const read = () => {
    if (page.text.value !== get("text")) page.text.value = get("text");
  };
  page.text.addEventListener("input", () => set("text", page.text.value, 250));
  page.add.addEventListener("click", () => {
    set("edits", [...get("edits"), { point: get("points")[0], kind: "ablate", strength: 1, unit: -1, direction: "", on: true }]);
  });
  page.difference.addEventListener("click", () => {
    local.changed = !local.changed;
    drawing.ask();
  });
  model.on("change:edits", list);
  model.on("change:text", read);
  list();
  read();
  return () => {
    clearTimeout(local.later);
    model.off("change:edits", list);
    model.off("change:text", read);
    drawing.end();
    page.root.remove();
  };
}

/**
 * All elements, made once, but for the edits and strips.
 *
 * @param {Model} model
 */
function layout(model) {
  const title = element("div", { class: "garcon-title" });
  const subtitle = element("div", { class: "garcon-subtitle", "aria-live": "polite" });
  const text = element("textarea", { "aria-label": "text", spellcheck: "false", rows: "2" });
  const edits = element("div", { class: "garcon-edits" });
  const add = element("button", { type: "button" }, "+ edit");
  const difference = element("button", { type: "button", "aria-pressed": "false", title: "show what the edits change instead of the values" }, "difference");
  const next = element("div", { class: "garcon-next" });
  const strip = element("div");
  const root = element(
    "div",
    { class: "garcon garcon-live garcon-live-view", "data-lm-suppress-shortcuts": "true" },
    element("div", { class: "garcon-head" },
      element("div", { class: "garcon-words" }, title, subtitle),
      element("div", { class: "garcon-tools" }, difference, ...(model.get("points").length ? [add] : []))),
    text,
    edits,
    element("div", { class: "garcon-panels" }, next, strip),
  );
  return {
    rows: /** @type {ReturnType<typeof editRow>[]} */ ([]), strips: /** @type {ReturnType<typeof stripOf>[]} */ ([]),
    root, title, subtitle, text, edits, add, difference, next, strip, tip: tip(root),
  };
}

/**
 * The controls of one edit. `show` brings them up to date.
 *
 * @param {Model} model
 * @param {{ edits: HTMLElement }} page
 * @param {number} place
 * @param {Change} change
 * @param {Later} set
 */
function editRow(model, page, place, change, set) {
  /** @param {string[]} names */
  const options = (names) => names.map((name) => element("option", { value: name }, name));
  const on = element("input", { type: "checkbox", "aria-label": "apply this edit" });
  const kind = element("select", { "aria-label": "kind of edit" }, ...options(Object.keys(model.get("ranges"))));
  const point = element("select", { "aria-label": "point" }, ...options(model.get("points")));
  const unit = element("input", { type: "number", min: "0", placeholder: "all", "aria-label": "unit or head; empty for all" });
  const direction = element("select", { "aria-label": "direction" }, element("option", { value: "" }, "unit"), ...options(model.get("directions")));
  const slider = element("input", { type: "range", step: "any", "aria-label": "strength" });
  const value = element("output");
  const remove = button("×", "remove this edit", () => set("edits", model.get("edits").filter((_, at) => at !== place)));
  const node = element("div", { class: "garcon-edit" }, on, kind, point, unit, direction, slider, value, remove);
  on.addEventListener("change", () => change(place, { on: on.checked }));
  kind.addEventListener("change", () => change(place, { kind: kind.value, strength: kind.value === "add" ? 0 : 1 }));
  point.addEventListener("change", () => change(place, { point: point.value, unit: -1 }));
  unit.addEventListener("input", () => change(place, { unit: unit.value === "" ? -1 : Number(unit.value) }, 250));
  direction.addEventListener("change", () => change(place, { direction: direction.value, unit: -1 }));
  slider.addEventListener("input", () => {
    value.textContent = number(Number(Number(slider.value).toFixed(2)));
    change(place, { strength: Number(slider.value) }, 60);
  });
  page.edits.append(node);
  return {
    node,
    /** @param {Edit} edit */
    show(edit) {
      const [low, high] = model.get("ranges")[edit.kind];
      [slider.min, slider.max, on.checked, kind.value, point.value] = [String(low), String(high), edit.on, edit.kind, edit.point];
      if (Number(slider.value) !== edit.strength) slider.value = String(edit.strength);
      if (document.activeElement !== unit) unit.value = edit.unit < 0 ? "" : String(edit.unit);
      direction.value = edit.direction;
      direction.style.display = edit.kind === "add" && model.get("directions").length ? "" : "none";
      unit.style.display = edit.kind === "add" && edit.direction ? "none" : "";
      value.textContent = number(Number(edit.strength.toFixed(2)));
      node.classList.toggle("garcon-off", !edit.on);
    },
  };
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {{ changed: boolean }} local
 * @param {Uint32Array} colours
 */
function draw(model, page, local, colours) {
  page.title.textContent = model.get("title") || "live";
  page.subtitle.replaceChildren(element("i", { class: "garcon-dot" }),
    `${plural(model.get("pieces").length, "token")} · ${model.get("busy") ? "computing …" : `computed in ${model.get("milliseconds").toLocaleString("en")} ms`}`);
  page.difference.setAttribute("aria-pressed", String(local.changed));
  page.next.replaceChildren();
  if (model.get("trouble")) page.next.append(element("div", { class: "garcon-trouble" }, model.get("trouble")));
  else page.next.append(bars("next token", model.get("predictions")));
  page.next.append(element("div", { class: "garcon-key" }, "bar: with the edits · ", element("u", {}), ": without"));
  const strips = model.get("strips");
  while (page.strips.length > strips.length) page.strips.pop()?.node.remove();
  while (page.strips.length < strips.length) page.strips.push(stripOf(model, page));
  const ink = inkOf(page.root);
  strips.forEach((each, place) => page.strips[place].show(each, local.changed, colours, ink));
}

/**
 * A point's tokens × units as a small heatmap.
 *
 * @param {Model} model
 * @param {{ strip: HTMLElement, tip: import("./common").Tip }} page
 */
function stripOf(model, page) {
  const name = element("div", { class: "garcon-label" });
  const canvas = element("canvas");
  const node = element("div", { class: "garcon-strip-of" }, name, canvas);
  page.strip.append(node);
  const state = { each: /** @type {Strip | null} */ (null), tall: 1, wide: 1, gutter: 0 };
  canvas.addEventListener("pointermove", (event) => {
    const { each, tall, wide, gutter } = state;
    if (!each) return;
    const row = clamp(Math.floor(event.offsetY / tall), 0, each.tokens - 1);
    const columns = Math.ceil(each.units / each.pooled);
    const column = clamp(Math.floor((event.offsetX - gutter) / wide), 0, columns - 1);
    const at = row * columns + column;
    const [after, before] = [each.values, each.before].map((part) => typed(part, Float32Array)[at]);
    const from = column * each.pooled;
    const what = each.pooled > 1 ? `strongest of units ${from} to ${Math.min(from + each.pooled, each.units) - 1}` : `unit ${from}`;
    page.tip.show(event, token(model.get("pieces")[row] ?? ""), ` ${what}: `, element("b", {}, number(after)), ` (without ${number(before)})`);
  });
  canvas.addEventListener("pointerleave", () => page.tip.hide());
  return {
    node,
    /**
     * @param {Strip} each
     * @param {boolean} changed
     * @param {Uint32Array} colours
     * @param {import("./common").Ink} ink
     */
    show(each, changed, colours, ink) {
      name.textContent = `${each.name} · ${plural(each.units, "unit")}${changed ? " · what the edits change" : ""}`;
      const columns = Math.ceil(each.units / each.pooled);
      const tall = clamp(Math.round(150 / each.tokens), 3, 18);
      const gutter = tall >= 11 ? 74 : 0;
      const width = Math.max(page.strip.clientWidth, 200);
      const wide = (width - gutter) / columns;
      Object.assign(state, { each, tall, wide, gutter });
      const values = typed(changed ? each.changed : each.values, Float32Array);
      const image = new ImageData(columns, each.tokens);
      const paint = new Uint32Array(image.data.buffer);
      values.forEach((value, at) => (paint[at] = colours[codeOf(value, each.limit)]));
      const context = sized(canvas, width, tall * each.tokens + 1);
      blit(context, image, gutter, 0, width - gutter, tall * each.tokens);
      context.strokeStyle = ink.line;
      context.strokeRect(gutter + 0.5, 0.5, width - gutter - 1, tall * each.tokens);
      if (!gutter) return;
      context.font = `10.5px ${ink.code}`;
      context.fillStyle = ink.soft;
      context.textAlign = "right";
      context.textBaseline = "middle";
      model.get("pieces").forEach((piece, row) => fitted(context, piece.replaceAll("\n", ""), gutter - 6, (row + 0.5) * tall, gutter - 8));
    },
  };
}

export default { render };
