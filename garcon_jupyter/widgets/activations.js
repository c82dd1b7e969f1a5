import { button, chooser, clamp, colourBar, element, pixels, redrawn, tip } from "./common.js";
import { draw } from "./drawing.js";
import { cellAt, columnAt, columnOf, middleOf, unitAt, words } from "./frames.js";

// Tokens × units: what the hand does. Python sends frames (activations.py says what a frame is);
// drawing.js draws the finest that covers the visible range; here traits are set for whatever needs
// another.

const TRAITS = ["title", "labels", "unit_name", "row", "rows", "head", "heads", "units", "frame", "pooled", "order", "detail",
  "detail_pooled", "detail_window", "window", "limit", "selected_token", "selected_unit", "sort_token", "counts", "spread", "busy", "trouble"];

function render({ model, el }) {
  const colours = pixels(model.get("palette"));
  const page = layout(model, colours);
  const local = { contrast: 1, drag: null, over: null, wanted: 0 };
  el.append(page.root);

  const get = (name) => model.get(name);
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const drawing = redrawn(model, page.root, TRAITS, () => draw(model, page, local, colours));

  // ---- what is where ------------------------------------------------------------------------
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
  const zoomBy = (factor, centre) => {
    const [first, end] = get("window");
    const middle = centre ?? middleOf(model);
    zoomTo(middle - (middle - first) * factor, middle + (end - middle) * factor);
  };
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
  const sort = (row) => set({ sort_token: row < 0 || row === get("sort_token") ? -1 : row });
  const forget = () => {
    local.over = null; // other values are coming under the pointer
    page.tip.hide();
  };
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

  model.on("change:values", forget);
  return () => {
    clearTimeout(local.wanted);
    model.off("change:values", forget);
    drawing.end();
    page.root.remove();
  };
}

/** All elements, made once. */
function layout(model, colours) {
  const save = (name) => (value) => {
    model.set(name, value);
    model.save_changes();
  };
  const page = { gutter: 0, width: 1, rowHeight: 20 };
  page.title = element("div", { class: "garcon-title" });
  page.subtitle = element("div", { class: "garcon-subtitle" });
  page.rowChooser = chooser("text", count(model.get("rows"), "text"), 0, model.get("row"), save("row"));
  const heads = model.get("heads");
  const names = heads ? ["all heads (norm)", ...count(heads, "head")] : [];
  page.headChooser = chooser("show", names, -1, model.get("head"), save("head"));
  page.sort = element("button", { type: "button" }, "sort");
  page.wider = button("−", "show more units (−)", () => {});
  page.closer = button("+", "show fewer units (+)", () => {});
  page.all = button("all", "show all units (0)", () => {});
  page.paler = button("−", "paler ([)", () => {});
  page.stronger = button("+", "stronger (])", () => {});
  page.zoom = element("span", { class: "garcon-group" }, element("span", { class: "garcon-label" }, "zoom"), page.wider, page.closer, page.all);
  const shade = element("span", { class: "garcon-group" }, element("span", { class: "garcon-label" }, "contrast"), page.paler, page.stronger);
  page.plot = element("canvas", { class: "garcon-plot" });
  page.spacer = element("div", {}, page.plot);
  page.scroller = element("div", { class: "garcon-scroller", tabindex: "0", role: "application" }, page.spacer);
  page.range = element("canvas", { class: "garcon-range", "aria-hidden": "true" });
  page.histogram = element("canvas", { role: "img" });
  page.beside = element("div", { class: "garcon-beside" }, page.histogram);
  page.readout = element("div", { class: "garcon-readout", "aria-live": "polite" });
  const foot = element("div", { class: "garcon-foot" }, page.readout);
  page.bar = colourBar(foot, colours);
  page.root = element(
    "div",
    { class: "garcon garcon-live garcon-activations", "data-lm-suppress-shortcuts": "true" },
    element("div", { class: "garcon-head" },
      element("div", { class: "garcon-words" }, page.title, page.subtitle),
      element("div", { class: "garcon-tools" }, page.rowChooser.group, page.headChooser.group, page.sort, page.zoom, shade)),
    element("div", { class: "garcon-sides" },
      element("div", { class: "garcon-main" }, page.scroller, page.range),
      page.beside),
    foot,
  );
  page.tip = tip(page.root);
  return page;
}

const count = (length, noun) => Array.from({ length }, (_, place) => `${noun} ${place}`);

function hover(model, page, local, event) {
  const cell = cellAt(model, page, event);
  local.over = cell;
  if (!cell) return page.tip.hide();
  page.tip.show(event, ...words(model, cell.row, cell.unit, cell));
}

function scrollTo(page, row) {
  const top = row * page.rowHeight;
  const room = page.scroller.clientHeight;
  if (top < page.scroller.scrollTop) page.scroller.scrollTop = top;
  if (top + page.rowHeight > page.scroller.scrollTop + room) page.scroller.scrollTop = top + page.rowHeight - room;
}

export default { render };
