// @ts-check
import { FILLING, assign, bars, blit, chooser, clamp, contextOf, element, filling, fitted, hatch, inkOf, number, pixels, plural, progress, redrawn, scaleBar, short, sized, tip, token, typed } from "./common.js";

// Rows × columns of one sheet at a time. Row 0 is at the bottom: the residual stream flows upwards.

/** @typedef {import("./traits").Model<import("./traits").Grid>} Model */
/** @typedef {import("./traits").Sheet} Sheet */
/** @typedef {ReturnType<typeof layout>} Page */
/** @typedef {{ row: number, column: number }} Cell */
/** @typedef {{ over: Cell | null }} Local what is under the pointer */
/** @typedef {CanvasRenderingContext2D} Context */

const TALL = 16;
/** @type {(keyof import("./traits").Grid)[]} */
const TRAITS = ["title", "sheets", "sheet", "selected_row", "selected_column", "detail", "words", "tops", ...FILLING, "trouble", "hint"];

/** @param {import("./traits").Place<import("./traits").Grid>} place */
function render({ model, el }) {
  const colours = pixels(model.get("palette"));
  const page = layout(model, colours, (sheet) => turn(sheet));
  /** @type {Local} */
  const local = { over: null };
  el.append(page.root);
  const get = model.get.bind(model);
  /** @param {Partial<import("./traits").Grid>} values */
  const set = (values) => assign(model, values);
  const drawing = redrawn(model, page.root, TRAITS, () => draw(model, page, local, colours));
  /**
   * @param {number} row
   * @param {number} column
   */
  const select = (row, column) => {
    const sheet = sheetOf(model);
    if (!sheet.rows.length || !sheet.columns.length) return;
    row = clamp(row, 0, sheet.rows.length - 1);
    column = clamp(column, 0, sheet.columns.length - 1);
    set({ selected_row: row, selected_column: column });
    const x = page.gutter + column * page.wide;
    if (x < page.scroller.scrollLeft + page.gutter) page.scroller.scrollLeft = x - page.gutter;
    if (x + page.wide > page.scroller.scrollLeft + page.scroller.clientWidth) page.scroller.scrollLeft = x + page.wide - page.scroller.clientWidth;
  };
  /** @param {number} sheet */
  const turn = (sheet) => set({ sheet, selected_row: -1, ...(sameColumns(model, sheet) ? {} : { selected_column: -1 }) });
  page.plot.addEventListener("pointermove", (event) => {
    local.over = cellAt(model, page, event);
    if (local.over) page.tip.show(event, ...told(model, local.over.row, local.over.column, true));
    else page.tip.hide();
    drawing.ask();
  });
  page.plot.addEventListener("pointerleave", () => {
    local.over = null;
    page.tip.hide();
    drawing.ask();
  });
  page.plot.addEventListener("click", (event) => {
    const cell = cellAt(model, page, event);
    if (cell) select(cell.row, cell.column);
  });
  page.scroller.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [row, column] = [get("selected_row"), get("selected_column")];
    /** @type {{ [key: string]: () => void }} */
    const keys = {
      ArrowUp: () => select(row + 1, column),
      ArrowDown: () => select(row < 0 ? 0 : row - 1, column),
      ArrowLeft: () => select(row, column < 0 ? 0 : column - 1),
      ArrowRight: () => select(row, column + 1),
      Home: () => select(row, 0),
      End: () => select(row, Infinity),
      m: () => turn((get("sheet") + 1) % get("sheets").length),
      Escape: () => set({ selected_row: -1, selected_column: -1, detail: {} }),
    };
    if (!keys[event.key]) return;
    keys[event.key]();
    event.preventDefault();
    event.stopPropagation(); // else the notebook takes the arrows for its own
  });
  return () => {
    drawing.end();
    page.root.remove();
  };
}

/**
 * All elements, made once.
 *
 * @param {Model} model
 * @param {Uint32Array} colours
 * @param {(sheet: number) => void} turn
 */
function layout(model, colours, turn) {
  const title = element("div", { class: "garcon-title" });
  const subtitle = element("div", { class: "garcon-subtitle" });
  const names = model.get("sheets").map((sheet) => sheet.name);
  const choice = chooser("show", names, 0, model.get("sheet"), turn);
  const plot = element("canvas", { class: "garcon-plot" });
  const scroller = element("div", { class: "garcon-scroller", tabindex: "0", role: "application" }, plot);
  const readout = element("div", { class: "garcon-readout", "aria-live": "polite" });
  const detail = element("div", { class: "garcon-detail", hidden: "" });
  const fill = filling(model);
  const foot = element("div", { class: "garcon-foot" }, readout, fill.key);
  const bar = scaleBar(foot, colours);
  foot.append(detail);
  const root = element(
    "div",
    { class: "garcon garcon-live garcon-grid-of", "data-lm-suppress-shortcuts": "true" },
    element("div", { class: "garcon-head" },
      element("div", { class: "garcon-words" }, title, subtitle),
      element("div", { class: "garcon-tools" }, fill.stop, choice.group)),
    scroller,
    foot,
  );
  return {
    gutter: 40, above: 20, below: 2, wide: 20, tall: 18, flat: true, ink: inkOf(root),
    root, title, subtitle, chooser: choice, plot, scroller, readout, detail, filling: fill, bar, tip: tip(root),
  };
}

/** @param {Model} model */
const sheetOf = (model) => model.get("sheets")[model.get("sheet")];

/**
 * Whether another sheet has the columns of the one that is shown.
 *
 * @param {Model} model
 * @param {number} other
 */
export function sameColumns(model, other) {
  const [a, b] = [sheetOf(model), model.get("sheets")[other]];
  return a.column_name === b.column_name && a.columns.length === b.columns.length;
}

/**
 * @param {Sheet} sheet
 * @param {number} row
 * @param {number} column
 */
export function valueAt(sheet, row, column) {
  return typed(sheet.values, Float32Array)[row * sheet.columns.length + column];
}

/**
 * The words of a cell with their probabilities, likeliest first.
 *
 * @param {Model} model
 * @param {number} row
 * @param {number} column
 */
export function wordsAt(model, row, column) {
  const sheet = sheetOf(model);
  const tops = typed(model.get("tops"), Int32Array);
  const choices = tops.length / Math.max(sheet.rows.length * sheet.columns.length, 1);
  if (!Number.isInteger(choices)) return [];
  const probabilities = typed(model.get("top_probabilities"), Float32Array);
  const start = (row * sheet.columns.length + column) * choices;
  /** @type {import("./traits").Chance[]} */
  const found = [];
  for (let place = start; place < start + choices; place++) {
    if (tops[place] >= 0) found.push([model.get("words")[tops[place]], probabilities[place]]);
  }
  return found;
}

/**
 * A value in words; a cell that has none (yet) says so.
 *
 * @param {number} value
 */
const valueSaid = (value) => (Number.isNaN(value) ? "–" : number(value));

/**
 * @param {Model} model
 * @param {number} row
 * @param {number} column
 * @param {boolean} full
 */
function told(model, row, column, full) {
  const sheet = sheetOf(model);
  /** @type {import("./common").Nodes} */
  const nodes = [`${sheet.row_name} ${sheet.rows[row]} · ${sheet.column_name} ${column} `, token(sheet.columns[column]), " "];
  model.get("sheets").forEach((each, place) => {
    if (!sameColumns(model, place) || row >= each.rows.length) return;
    nodes.push(element("span", { class: "garcon-fact" }, `${each.name} `, element("b", {}, valueSaid(valueAt(each, row, column)))));
  });
  const words = full ? wordsAt(model, row, column) : [];
  if (words.length) nodes.push(bars("", words));
  return nodes;
}

/**
 * @param {Model} model
 * @param {Pick<Page, "gutter" | "above" | "wide" | "tall">} page
 * @param {import("./common").Pointer} event
 * @returns {Cell | null}
 */
export function cellAt(model, page, event) {
  const sheet = sheetOf(model);
  const column = Math.floor((event.offsetX - page.gutter) / page.wide);
  const row = sheet.rows.length - 1 - Math.floor((event.offsetY - page.above) / page.tall);
  if (column < 0 || column >= sheet.columns.length || row < 0 || row >= sheet.rows.length) return null;
  return { row, column };
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @param {Uint32Array} colours
 */
function draw(model, page, local, colours) {
  const sheet = sheetOf(model);
  page.ink = inkOf(page.root);
  describe(model, page, sheet);
  page.filling.show(typed(sheet.values, Float32Array).some(Number.isNaN));
  const room = page.scroller.clientWidth;
  if (!room || !sheet.rows.length || !sheet.columns.length) return;
  const context = measure(page, sheet, room);
  drawCells(page, sheet, colours, context);
  if (page.wide >= 30 && page.tall >= 14) writeWords(model, page, sheet, context);
  drawLabels(model, page, local, sheet, context);
  drawMarks(model, page, local, sheet, context);
  page.bar(sheet.signed ? 1 : 128, sheet.ticks);
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Sheet} sheet
 */
function describe(model, page, sheet) {
  page.title.textContent = model.get("title") || sheet.name;
  page.subtitle.textContent = `${plural(sheet.rows.length, sheet.row_name)} × ${plural(sheet.columns.length, sheet.column_name)} · ${sheet.name}${progress(model)}`;
  page.chooser.select.value = String(model.get("sheet"));
  page.scroller.setAttribute("aria-label", `${page.title.textContent}: ${page.subtitle.textContent}. Arrow keys move the selected cell.`);
  page.readout.replaceChildren();
  const [row, column] = [model.get("selected_row"), model.get("selected_column")];
  if (model.get("trouble")) page.readout.append(element("span", { class: "garcon-trouble" }, model.get("trouble")));
  else if (row >= 0 && column >= 0 && row < sheet.rows.length && column < sheet.columns.length) page.readout.append(...told(model, row, column, false));
  else page.readout.append(model.get("hint"));
  const detail = model.get("detail");
  page.detail.hidden = !detail?.title;
  page.detail.replaceChildren();
  if (!detail?.title) return;
  page.detail.append(element("b", { class: "garcon-head-line" }, detail.title), detail.text ?? "");
  if (detail.rows?.length) page.detail.append(bars("", detail.rows));
}

/**
 * Sizes of cells, gutter and labels; the canvas, cleared, at that size.
 *
 * @param {Page} page
 * @param {Sheet} sheet
 * @param {number} room
 */
function measure(page, sheet, room) {
  const context = contextOf(page.plot);
  context.font = `11.5px ${page.ink.text}`;
  const widest = Math.max(...sheet.rows.map((row) => context.measureText(row).width));
  page.gutter = Math.round(clamp(widest + 14, 26, 150));
  const least = sheet.columns.length <= 1000 ? 14 : 3;
  page.wide = clamp((room - page.gutter - 2) / sheet.columns.length, least, 104);
  page.tall = sheet.rows.length <= 16 ? 24 : sheet.rows.length <= 40 ? 17 : 12;
  page.flat = page.wide >= 42;
  page.above = page.flat ? 22 : 70;
  page.below = page.flat && sheet.rows.length > TALL ? 20 : 2; // labels at both ends of what is tall
  const width = Math.max(page.gutter + page.wide * sheet.columns.length + 2, page.flat ? 0 : Math.min(room, page.gutter + page.wide * sheet.columns.length + 50));
  return sized(page.plot, Math.ceil(width), Math.ceil(page.above + page.tall * sheet.rows.length + page.below));
}

/**
 * @param {Page} page
 * @param {Sheet} sheet
 * @param {Uint32Array} colours
 * @param {Context} context
 */
function drawCells(page, sheet, colours, context) {
  const [rows, columns] = [sheet.rows.length, sheet.columns.length];
  const codes = typed(sheet.codes, Uint8Array);
  const image = new ImageData(columns, rows);
  const ink = new Uint32Array(image.data.buffer);
  for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) ink[(rows - 1 - row) * columns + column] = colours[codes[row * columns + column]];
  blit(context, image, page.gutter, page.above, page.wide * columns, page.tall * rows);
  context.fillStyle = hatch(context, page.ink.soft, page.ink.shade);
  typed(sheet.values, Float32Array).forEach((value, place) => {
    if (!Number.isNaN(value)) return;
    context.fillRect(page.gutter + (place % columns) * page.wide, page.above + (rows - 1 - Math.floor(place / columns)) * page.tall, page.wide, page.tall);
  });
  for (let row = 1; row < rows && page.tall >= 8; row++) context.clearRect(page.gutter, page.above + row * page.tall - 0.5, page.wide * columns, 1);
  for (let column = 1; column < columns && page.wide >= 8; column++) context.clearRect(page.gutter + column * page.wide - 0.5, page.above, 1, page.tall * rows);
  context.strokeStyle = page.ink.line;
  context.strokeRect(page.gutter + 0.5, page.above + 0.5, page.wide * columns - 1, page.tall * rows - 1);
}

/**
 * The likeliest word in each cell, or, without words, its number; as still_grid in Python.
 *
 * @param {Model} model
 * @param {Page} page
 * @param {Sheet} sheet
 * @param {Context} context
 */
function writeWords(model, page, sheet, context) {
  const codes = typed(sheet.codes, Uint8Array);
  const worded = model.get("words").length > 0;
  context.font = `${page.tall > 20 ? 11.5 : 10.5}px ${worded ? page.ink.code : page.ink.text}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.direction = "ltr";
  sheet.rows.forEach((_, row) => sheet.columns.forEach((_, column) => {
    const code = codes[row * sheet.columns.length + column];
    const value = valueAt(sheet, row, column);
    const words = worded ? wordsAt(model, row, column)[0]?.[0] ?? "" : short(value);
    context.fillStyle = Math.abs(code - 128) > 78 ? "#ffffff" : page.ink.ink;
    fitted(context, words, page.gutter + (column + 0.5) * page.wide, page.above + (sheet.rows.length - row - 0.5) * page.tall + 0.5, page.wide - 5);
  }));
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @param {Sheet} sheet
 * @param {Context} context
 */
function drawLabels(model, page, local, sheet, context) {
  const [row, column] = [local.over?.row ?? model.get("selected_row"), local.over?.column ?? model.get("selected_column")];
  const each = Math.max(1, Math.ceil(11 / page.tall));
  context.textBaseline = "middle";
  context.direction = "ltr";
  /**
   * @param {boolean} strong
   * @param {number} size
   * @param {string} family
   */
  const write = (strong, size, family) => {
    context.font = `${strong ? "600 " : ""}${size}px ${family}`;
    context.fillStyle = strong ? page.ink.ink : page.ink.soft;
  };
  sheet.rows.forEach((label, place) => {
    if (place % each && place !== row) return;
    write(place === row, 11, page.ink.text);
    context.textAlign = "right";
    fitted(context, label, page.gutter - 7, page.above + (sheet.rows.length - place - 0.5) * page.tall, page.gutter - 8);
  });
  const apart = page.flat ? 1 : Math.max(1, Math.ceil(12 / page.wide));
  sheet.columns.forEach((label, place) => {
    if (place % apart && place !== column) return;
    write(place === column, 11.5, page.ink.code);
    context.save();
    context.translate(page.gutter + (place + 0.5) * page.wide, page.above - (page.flat ? 10 : 6));
    context.textAlign = page.flat ? "center" : "left";
    if (!page.flat) context.rotate(-Math.PI / 4);
    fitted(context, label, 0, 0, page.flat ? page.wide - 3 : 84);
    if (page.below > 2) fitted(context, label, 0, 20 + page.tall * sheet.rows.length, page.wide - 3);
    context.restore();
  });
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @param {Sheet} sheet
 * @param {Context} context
 */
function drawMarks(model, page, local, sheet, context) {
  /**
   * @param {number} row
   * @param {number} column
   * @param {string} colour
   * @param {number} width
   */
  const outline = (row, column, colour, width) => {
    context.strokeStyle = colour;
    context.lineWidth = width;
    const top = row < 0 ? page.above : page.above + (sheet.rows.length - 1 - row) * page.tall;
    context.strokeRect(page.gutter + column * page.wide, top, page.wide, row < 0 ? page.tall * sheet.rows.length : page.tall);
  };
  if (local.over) outline(local.over.row, local.over.column, page.ink.soft, 1);
  const [row, column] = [model.get("selected_row"), model.get("selected_column")];
  if (column >= 0 && column < sheet.columns.length) outline(row < sheet.rows.length ? row : -1, column, page.ink.ink, row < 0 ? 1 : 2);
}

export default { render };
