import { FILLING, bars, blit, chooser, clamp, element, filling, fitted, hatch, number, pixels, plural, progress, redrawn, scaleBar, sized, tip, token, typed } from "./common.js";

// Rows × columns of one sheet at a time. Row 0 is at the bottom: the residual stream flows upwards.

const TALL = 16;
const TRAITS = ["title", "sheets", "sheet", "selected_row", "selected_column", "detail", "words", "tops", ...FILLING, "trouble", "hint"];

function render({ model, el }) {
  const colours = pixels(model.get("palette"));
  const page = layout(model, colours);
  const local = { over: null };
  el.append(page.root);
  const get = (name) => model.get(name);
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const drawing = redrawn(model, page.root, TRAITS, () => draw(model, page, local, colours));
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
  const turn = (sheet) => set({ sheet, selected_row: -1, ...(sameColumns(model, sheet) ? {} : { selected_column: -1 }) });
  page.turn = turn;
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

function layout(model, colours) {
  const page = { gutter: 40, above: 20, wide: 20, tall: 18 };
  page.title = element("div", { class: "garcon-title" });
  page.subtitle = element("div", { class: "garcon-subtitle" });
  const names = model.get("sheets").map((sheet) => sheet.name);
  page.chooser = chooser("show", names, 0, model.get("sheet"), (sheet) => page.turn(sheet));
  page.plot = element("canvas", { class: "garcon-plot" });
  page.scroller = element("div", { class: "garcon-scroller", tabindex: "0", role: "application" }, page.plot);
  page.readout = element("div", { class: "garcon-readout", "aria-live": "polite" });
  page.detail = element("div", { class: "garcon-detail", hidden: "" });
  page.filling = filling(model);
  const foot = element("div", { class: "garcon-foot" }, page.readout, page.filling.key);
  page.bar = scaleBar(foot, colours);
  foot.append(page.detail);
  page.root = element(
    "div",
    { class: "garcon garcon-live garcon-grid-of", "data-lm-suppress-shortcuts": "true" },
    element("div", { class: "garcon-head" },
      element("div", { class: "garcon-words" }, page.title, page.subtitle),
      element("div", { class: "garcon-tools" }, page.filling.stop, page.chooser.group)),
    page.scroller,
    foot,
  );
  page.tip = tip(page.root);
  return page;
}

const sheetOf = (model) => model.get("sheets")[model.get("sheet")];

function sameColumns(model, other) {
  const [a, b] = [sheetOf(model), model.get("sheets")[other]];
  return a.column_name === b.column_name && a.columns.length === b.columns.length;
}

function valueAt(sheet, row, column) {
  return typed(sheet.values, Float32Array)[row * sheet.columns.length + column];
}

/** The words of a cell with their probabilities, likeliest first. */
function wordsAt(model, row, column) {
  const sheet = sheetOf(model);
  const tops = typed(model.get("tops"), Int32Array);
  const choices = tops.length / Math.max(sheet.rows.length * sheet.columns.length, 1);
  if (!Number.isInteger(choices)) return [];
  const probabilities = typed(model.get("top_probabilities"), Float32Array);
  const start = (row * sheet.columns.length + column) * choices;
  const found = [];
  for (let place = start; place < start + choices; place++) {
    if (tops[place] >= 0) found.push([model.get("words")[tops[place]], probabilities[place]]);
  }
  return found;
}

/** A value in words; a cell that has none (yet) says so. */
const valueSaid = (value) => (Number.isNaN(value) ? "–" : number(value));

function told(model, row, column, full) {
  const sheet = sheetOf(model);
  const nodes = [`${sheet.row_name} ${sheet.rows[row]} · ${sheet.column_name} ${column} `, token(sheet.columns[column]), " "];
  model.get("sheets").forEach((each, place) => {
    if (!sameColumns(model, place) || row >= each.rows.length) return;
    nodes.push(element("span", { class: "garcon-fact" }, `${each.name} `, element("b", {}, valueSaid(valueAt(each, row, column)))));
  });
  const words = full ? wordsAt(model, row, column) : [];
  if (words.length) nodes.push(bars("", words));
  return nodes;
}

function cellAt(model, page, event) {
  const sheet = sheetOf(model);
  const column = Math.floor((event.offsetX - page.gutter) / page.wide);
  const row = sheet.rows.length - 1 - Math.floor((event.offsetY - page.above) / page.tall);
  if (column < 0 || column >= sheet.columns.length || row < 0 || row >= sheet.rows.length) return null;
  return { row, column };
}

function draw(model, page, local, colours) {
  const sheet = sheetOf(model);
  const style = getComputedStyle(page.root);
  const css = (name) => style.getPropertyValue(name);
  page.ink = { ink: css("--ink"), soft: css("--soft"), line: css("--line"), shade: css("--shade"), accent: css("--accent"), code: css("--code-font"), text: css("--text-font") };
  describe(model, page, sheet);
  page.filling.show(typed(sheet.values, Float32Array).some(Number.isNaN));
  const room = page.scroller.clientWidth;
  if (!room || !sheet.rows.length || !sheet.columns.length) return;
  const context = measure(model, page, sheet, room);
  drawCells(model, page, sheet, colours, context);
  drawLabels(model, page, local, sheet, context);
  drawMarks(model, page, local, sheet, context);
  page.bar(sheet.signed ? 1 : 128, sheet.ticks);
}

function describe(model, page, sheet) {
  page.title.textContent = model.get("title") || sheet.name;
  page.subtitle.textContent = `${plural(sheet.rows.length, sheet.row_name)} × ${plural(sheet.columns.length, sheet.column_name)} · ${sheet.name}${progress(model)}`;
  page.chooser.select.value = model.get("sheet");
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

/** Sizes of cells, gutter and labels; the canvas, cleared, at that size. */
function measure(model, page, sheet, room) {
  const context = page.plot.getContext("2d");
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

function drawCells(model, page, sheet, colours, context) {
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
  if (page.wide >= 30 && page.tall >= 14) writeWords(model, page, sheet, context, codes);
}

/** The likeliest word in each cell, or, without words, its number. */
function writeWords(model, page, sheet, context, codes) {
  const worded = model.get("words").length > 0;
  context.font = `${page.tall > 20 ? 11.5 : 10.5}px ${worded ? page.ink.code : page.ink.text}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.direction = "ltr";
  sheet.rows.forEach((_, row) => sheet.columns.forEach((_, column) => {
    const code = codes[row * sheet.columns.length + column];
    const value = valueAt(sheet, row, column);
    const words = worded ? wordsAt(model, row, column)[0]?.[0] ?? "" : Number.isNaN(value) ? "" : short(value);
    context.fillStyle = Math.abs(code - 128) > 78 ? "#ffffff" : page.ink.ink;
    fitted(context, words, page.gutter + (column + 0.5) * page.wide, page.above + (sheet.rows.length - row - 0.5) * page.tall + 0.5, page.wide - 5);
  }));
}

function short(value) {
  const words = Math.abs(value) >= 100 ? String(Math.round(value)) : value.toFixed(2);
  return words.replace(/^-(?=0\.00$)/, "").replace("-", "−");
}

function drawLabels(model, page, local, sheet, context) {
  const [row, column] = [local.over?.row ?? model.get("selected_row"), local.over?.column ?? model.get("selected_column")];
  const each = Math.max(1, Math.ceil(11 / page.tall));
  context.textBaseline = "middle";
  context.direction = "ltr";
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

function drawMarks(model, page, local, sheet, context) {
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
