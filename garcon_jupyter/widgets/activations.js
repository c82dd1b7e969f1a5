// @ts-check
import { assign, button, chooser, clamp, colourBar, element, inkOf, pixels, redrawn, tip } from "./common.js";
import { draw } from "./drawing.js";
import { cellAt, columnAt, columnOf, middleOf, unitAt, words } from "./frames.js";

// Tokens × units: what the hand does. Python sends frames (activations.py says what a frame is);
// drawing.js draws the finest that covers the visible range; here traits are set for whatever needs
// another.

/** @typedef {import("./traits").Model<import("./traits").Activations>} Model */
/** @typedef {ReturnType<typeof layout>} Page */
/** @typedef {import("./frames").Cell} Cell */
/** @typedef {ReturnType<typeof untouched>} Local */

/** @type {(keyof import("./traits").Activations)[]} */
const TRAITS = ["title", "labels", "unit_name", "row", "rows", "head", "heads", "units", "frame", "pooled", "order", "detail",
  "detail_pooled", "detail_window", "window", "limit", "selected_token", "selected_unit", "sort_token", "counts", "spread", "busy", "trouble"];

/** What the hand does, before it has done anything. */
const untouched = () => ({
  contrast: 1,
  drag: /** @type {{ from: number, to: number } | null} */ (null),
  over: /** @type {Cell | null} */ (null),
  wanted: /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined),
  /** The value of the selected cell. */
  marked: /** @type {() => number | undefined} */ (() => undefined),
});

/** @param {import("./traits").Place<import("./traits").Activations>} place */
function render({ model, el }) {
  const colours = pixels(model.get("palette"));
  const page = layout(model, colours);
  const local = untouched();
  el.append(page.root);

  const get = model.get.bind(model);
  /** @param {Partial<import("./traits").Activations>} values */
  const set = (values) => assign(model, values);
  const drawing = redrawn(model, page.root, TRAITS, () => draw(model, page, local, colours));

  // ---- what is where ------------------------------------------------------------------------
  /**
   * @param {number} first
   * @param {number} end
   */
  const zoomTo = (first, end) => {
    const units = get("units");
    const width = clamp(Math.round(end - first), Math.min(4, units), units);
    first = clamp(Math.round(first), 0, units - width);
    model.set("window", [first, first + width]);
    drawing.ask();
    // Python hears of a zoom when the hand rests, not on every turn of the wheel.
    clearTimeout(local.wanted);
    local.wanted = setTimeout(() => model.save_changes(), 120);
  };
  /** @param {number} factor */
  const zoomBy = (factor, middle = middleOf(model)) => {
    const [first, end] = get("window");
    zoomTo(middle - (middle - first) * factor, middle + (end - middle) * factor);
  };
  /**
   * @param {number} row
   * @param {number} column
   */
  const select = (row, column) => {
    const tokens = get("labels").length;
    const units = get("units");
    if (!tokens || !units) return;
    row = clamp(row, 0, tokens - 1);
    column = clamp(column, 0, units - 1);
    const [first, end] = get("window");
    if (column < first) zoomTo(column, column + end - first);
    if (column >= end) zoomTo(column + 1 - (end - first), column + 1);
    scrollTo(page, row);
    set({ selected_token: row, selected_unit: unitAt(model, column) });
  };
  /** @param {number} row */
  const sort = (row) => set({ sort_token: row < 0 || row === get("sort_token") ? -1 : row });
  const forget = () => {
    local.over = null; // other values are coming under the pointer
    page.tip.hide();
  };
  /** @param {number} unit */
  const openHead = (unit) => {
    forget();
    if (get("heads") && get("head") < 0 && unit >= 0) set({ head: unit });
  };

  // ---- mouse --------------------------------------------------------------------------------
  page.plot.addEventListener("pointerdown", (event) => {
    if (event.button || event.offsetX < page.gutter) return;
    page.plot.setPointerCapture(event.pointerId);
    local.drag = { from: event.offsetX, to: event.offsetX };
  });
  page.plot.addEventListener("pointermove", (event) => {
    if (local.drag) {
      local.drag.to = clamp(event.offsetX, page.gutter, page.gutter + page.width);
      page.tip.hide();
    } else {
      hover(model, page, local, event);
    }
    drawing.ask();
  });
  page.plot.addEventListener("pointerup", (event) => {
    const drag = local.drag;
    local.drag = null;
    if (!drag) return;
    if (Math.abs(drag.to - drag.from) > 6) {
      const [a, b] = [drag.from, drag.to].sort((x, y) => x - y).map((x) => columnAt(model, page, x));
      zoomTo(Math.floor(a), Math.ceil(b));
    } else {
      const cell = cellAt(model, page, event);
      if (cell) select(cell.row, cell.column);
    }
    drawing.ask();
  });
  page.plot.addEventListener("pointerleave", () => {
    local.over = null;
    page.tip.hide();
    drawing.ask();
  });
  page.plot.addEventListener("dblclick", (event) => {
    const cell = cellAt(model, page, event);
    if (cell && get("heads") && get("head") < 0) openHead(cell.unit);
    else zoomTo(0, get("units"));
  });
  page.plot.addEventListener("wheel", (event) => {
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    const [first, end] = get("window");
    if (event.ctrlKey || event.metaKey) {
      zoomBy(Math.exp(clamp(event.deltaY, -60, 60) * 0.006), columnAt(model, page, event.offsetX));
    } else if (Math.abs(sideways) > (event.shiftKey ? 0 : Math.abs(event.deltaY))) {
      const step = (sideways / page.width) * (end - first);
      const move = Math.sign(step) * Math.max(1, Math.abs(Math.round(step)));
      zoomTo(clamp(first + move, 0, get("units") - (end - first)), clamp(end + move, end - first, get("units")));
    } else return; // plain turning scrolls the page, as everywhere
    event.preventDefault();
  }, { passive: false });
  /** @param {PointerEvent} event */
  const pan = (event) => {
    const [first, end] = get("window");
    const centre = ((event.offsetX - page.gutter) / page.width) * get("units");
    zoomTo(centre - (end - first) / 2, centre + (end - first) / 2);
  };
  page.range.addEventListener("pointerdown", (event) => {
    page.range.setPointerCapture(event.pointerId);
    pan(event);
  });
  page.range.addEventListener("pointermove", (event) => event.buttons && pan(event));
  page.scroller.addEventListener("scroll", drawing.ask);

  // ---- keys ---------------------------------------------------------------------------------
  page.scroller.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const row = get("selected_token");
    const column = columnOf(model, get("selected_unit"));
    const [first, end] = get("window");
    const far = event.shiftKey ? Math.max(1, Math.round((end - first) / 10)) : 1;
    const begin = row < 0 || column < 0;
    /** @type {{ [key: string]: () => void }} */
    const keys = {
      ArrowLeft: () => select(row, begin ? first : column - far),
      ArrowRight: () => select(row, begin ? first : column + far),
      ArrowUp: () => select(begin ? 0 : row - 1, begin ? first : column),
      ArrowDown: () => select(begin ? 0 : row + 1, begin ? first : column),
      Home: () => select(row, 0),
      End: () => select(row, get("units") - 1),
      "+": () => zoomBy(0.5),
      "=": () => zoomBy(0.5),
      "-": () => zoomBy(2),
      0: () => zoomTo(0, get("units")),
      s: () => sort(local.over ? local.over.row : row),
      "[": () => contrast(1 / 1.5),
      "]": () => contrast(1.5),
      Enter: () => openHead(get("selected_unit")),
      Escape: () => set({ sort_token: -1, selected_token: -1, selected_unit: -1 }),
    };
    if (!keys[event.key]) return;
    keys[event.key]();
    event.preventDefault();
    event.stopPropagation(); // else the notebook takes the arrows for its own
  });
  /** @param {number} factor */
  const contrast = (factor) => {
    local.contrast = clamp(local.contrast * factor, 1e-3, 1e3);
    drawing.ask();
  };
  page.sort.addEventListener("click", () => sort(get("selected_token")));
  page.closer.addEventListener("click", () => zoomBy(0.5));
  page.wider.addEventListener("click", () => zoomBy(2));
  page.all.addEventListener("click", () => zoomTo(0, get("units")));
  page.paler.addEventListener("click", () => contrast(1 / 1.5));
  page.stronger.addEventListener("click", () => contrast(1.5));

  model.on("change:frame", forget);
  return () => {
    clearTimeout(local.wanted);
    model.off("change:frame", forget);
    drawing.end();
    page.root.remove();
  };
}

/**
 * All elements, made once.
 *
 * @param {Model} model
 * @param {Uint32Array} colours
 */
function layout(model, colours) {
  const title = element("div", { class: "garcon-title" });
  const subtitle = element("div", { class: "garcon-subtitle" });
  const rowChooser = chooser("text", count(model.get("rows"), "text"), 0, model.get("row"), (row) => assign(model, { row }));
  const heads = model.get("heads");
  const names = heads ? ["all heads (norm)", ...count(heads, "head")] : [];
  const headChooser = chooser("show", names, -1, model.get("head"), (head) => assign(model, { head }));
  const sort = element("button", { type: "button" }, "sort");
  const wider = button("−", "show more units (−)");
  const closer = button("+", "show fewer units (+)");
  const all = button("all", "show all units (0)");
  const paler = button("−", "paler ([)");
  const stronger = button("+", "stronger (])");
  const zoom = element("span", { class: "garcon-group" }, element("span", { class: "garcon-label" }, "zoom"), wider, closer, all);
  const shade = element("span", { class: "garcon-group" }, element("span", { class: "garcon-label" }, "contrast"), paler, stronger);
  const plot = element("canvas", { class: "garcon-plot" });
  const spacer = element("div", {}, plot);
  const scroller = element("div", { class: "garcon-scroller", tabindex: "0", role: "application" }, spacer);
  const range = element("canvas", { class: "garcon-range", "aria-hidden": "true" });
  const histogram = element("canvas", { role: "img" });
  const beside = element("div", { class: "garcon-beside" }, histogram);
  const readout = element("div", { class: "garcon-readout", "aria-live": "polite" });
  const foot = element("div", { class: "garcon-foot" }, readout);
  const bar = colourBar(foot, colours);
  const root = element(
    "div",
    { class: "garcon garcon-live garcon-activations", "data-lm-suppress-shortcuts": "true" },
    element("div", { class: "garcon-head" },
      element("div", { class: "garcon-words" }, title, subtitle),
      element("div", { class: "garcon-tools" }, rowChooser.group, headChooser.group, sort, zoom, shade)),
    element("div", { class: "garcon-sides" },
      element("div", { class: "garcon-main" }, scroller, range),
      beside),
    foot,
  );
  return {
    gutter: 0, width: 1, rowHeight: 20, ink: inkOf(root),
    root, title, subtitle, rowChooser, headChooser, sort, wider, closer, all, paler, stronger, zoom,
    plot, spacer, scroller, range, histogram, beside, readout, bar, tip: tip(root),
  };
}

/**
 * @param {number} length
 * @param {string} noun
 */
const count = (length, noun) => Array.from({ length }, (_, place) => `${noun} ${place}`);

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @param {PointerEvent} event
 */
function hover(model, page, local, event) {
  const cell = cellAt(model, page, event);
  local.over = cell;
  if (!cell) page.tip.hide();
  else page.tip.show(event, ...words(model, cell.row, cell.unit, cell));
}

/**
 * @param {Page} page
 * @param {number} row
 */
function scrollTo(page, row) {
  const top = row * page.rowHeight;
  const room = page.scroller.clientHeight;
  if (top < page.scroller.scrollTop) page.scroller.scrollTop = top;
  if (top + page.rowHeight > page.scroller.scrollTop + room) page.scroller.scrollTop = top + page.rowHeight - room;
}

export default { render };
