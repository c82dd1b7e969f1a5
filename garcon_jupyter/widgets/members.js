// @ts-check
import { FILLING, assign, chooser, clamp, codeOf, colourBar, contextOf, element, fitted, inkOf, number, pixels, plural, redrawn, sized, tip, token, typed } from "./common.js";

// The same picture of several models side by side, and the selected value over all of them as a line.

/** @typedef {import("./traits").Model<import("./traits").Members>} Model */
/** @typedef {ReturnType<typeof layout>} Page */
/** @typedef {{ row: number, column: number }} Cell */

/** @type {(keyof import("./traits").Members)[]} */
const TRAITS = ["title", "labels", "errors", "places", "ticks", "axis", "rows", "columns", "sheets", "names", "numbers", "limit", "sheet", "selected_row", "selected_column", ...FILLING, "trouble"];

const TALL = 150;

/** @param {import("./traits").Place<import("./traits").Members>} place */
function render({ model, el }) {
  const colours = pixels(model.get("palette"));
  /** @param {number} sheet */
  const turn = (sheet) => assign(model, { sheet });
  const page = layout(model, colours, turn);
  el.append(page.root);
  /** @type {{ over: Cell | null }} */
  const local = { over: null };
  const drawing = redrawn(model, page.root, TRAITS, () => draw(model, page, local, colours));
  /**
   * @param {number} row
   * @param {number} column
   */
  const select = (row, column) =>
    assign(model, {
      selected_row: clamp(row, 0, model.get("rows").length - 1),
      selected_column: clamp(column, 0, model.get("columns").length - 1),
    });
  page.plots.forEach((plot, member) => {
    plot.box.addEventListener("pointermove", (event) => {
      local.over = cellIn(model, plot.box, event);
      page.tip.show(event, ...told(model, member, local.over));
      drawing.ask();
    });
    plot.box.addEventListener("pointerleave", () => {
      local.over = null;
      page.tip.hide();
      drawing.ask();
    });
    plot.box.addEventListener("click", (event) => {
      const cell = cellIn(model, plot.box, event);
      select(cell.row, cell.column);
    });
  });
  page.columns.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    /** @type {{ [key: string]: [number, number] }} */
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const step = steps[event.key];
    if (step) select(model.get("selected_row") + step[0], model.get("selected_column") + step[1]);
    else if (event.key === "m") turn((model.get("sheet") + 1) % model.get("sheets").length);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  return () => {
    drawing.end();
    page.root.remove();
  };
}

/**
 * @param {Model} model
 * @param {Uint32Array} colours
 * @param {(sheet: number) => void} turn
 */
function layout(model, colours, turn) {
  const root = element("div", { class: "garcon garcon-live garcon-members-of" });
  const title = element("div", { class: "garcon-title" });
  const subtitle = element("div", { class: "garcon-subtitle" });
  const choose = chooser(model.get("names")[0], model.get("sheets"), 0, model.get("sheet"), turn);
  const few = model.get("labels").length < 6 ? " garcon-few" : "";
  const columns = element("div", { class: `garcon-columns${few}`, tabindex: 0, role: "application", "aria-label": "members side by side" });
  const plots = model.get("labels").map((label, member) => {
    const error = model.get("errors")[member];
    const box = element("div", { class: error ? "garcon-plot garcon-failed" : "garcon-plot" });
    const canvas = element("canvas", { role: "img", "aria-label": label });
    const [mark, over] = [element("div", { class: "garcon-mark" }), element("div", { class: "garcon-over" })];
    if (error) box.append(error);
    else box.append(canvas, over, mark);
    columns.append(element("div", { class: "garcon-member" }, element("b", { title: label }, label), box));
    return { box, canvas, mark, over, error };
  });
  const chosen = element("div", { class: "garcon-chosen", "aria-live": "polite" });
  const line = element("canvas", { class: "garcon-line", role: "img" });
  const foot = element("div", { class: "garcon-foot" }, element("div", { class: "garcon-readout" }, "Click a cell, or use the arrow keys: its value over the members is below."));
  const bar = colourBar(foot, colours);
  root.append(
    element("div", { class: "garcon-head" }, element("div", { class: "garcon-words" }, title, subtitle), element("div", { class: "garcon-tools" }, choose.group)),
    columns,
    chosen,
    line,
    foot,
  );
  return { root, title, subtitle, select: choose.select, columns, plots: plots.filter((plot) => !plot.error), all: plots, chosen, line, bar, tip: tip(root) };
}

/**
 * The cell of a picture under the pointer.
 *
 * @param {Model} model
 * @param {HTMLElement} box
 * @param {MouseEvent} event
 * @returns {Cell}
 */
function cellIn(model, box, event) {
  const area = box.getBoundingClientRect();
  /**
   * @param {number} share
   * @param {number} count
   */
  const at = (share, count) => clamp(Math.floor(share * count), 0, count - 1);
  return {
    row: at((event.clientY - area.top) / area.height, model.get("rows").length),
    column: at((event.clientX - area.left) / area.width, model.get("columns").length),
  };
}

/**
 * The value of a cell of every member; NaN of those that failed.
 *
 * @param {Model} model
 * @param {number} row
 * @param {number} column
 */
export function overMembers(model, row, column) {
  const [sheets, rows, columns] = [model.get("sheets").length, model.get("rows").length, model.get("columns").length];
  const values = typed(model.get("numbers"), Float32Array);
  return model.get("labels").map((_, member) => values[((member * sheets + model.get("sheet")) * rows + row) * columns + column]);
}

/**
 * @param {Model} model
 * @param {Cell} cell
 */
function named(model, { row, column }) {
  const [sheet, rowName, columnName] = model.get("names");
  const first = model.get("sheets").length > 1 ? `${sheet} ${model.get("sheets")[model.get("sheet")]}, ` : "";
  return `${first}${rowName} ${model.get("rows")[row]}, ${columnName} ${model.get("columns")[column]}`;
}

/**
 * @param {Model} model
 * @param {number} drawn the place among those that did not fail
 * @param {Cell} cell
 * @returns {(string | Node)[]}
 */
function told(model, drawn, cell) {
  const member = model.get("labels").map((_, at) => at).filter((at) => !model.get("errors")[at])[drawn];
  const value = overMembers(model, cell.row, cell.column)[member];
  return [token(model.get("labels")[member]), ` ${named(model, cell)}: `, element("b", {}, number(value))];
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {{ over: Cell | null }} local
 * @param {Uint32Array} colours
 */
function draw(model, page, local, colours) {
  const [rows, columns] = [model.get("rows").length, model.get("columns").length];
  page.title.textContent = model.get("title") || "members";
  const failed = model.get("errors").filter(Boolean).length;
  page.subtitle.textContent = `${plural(model.get("labels").length, "member")} · ${plural(rows, model.get("names")[1])} × ${plural(columns, model.get("names")[2])}${failed ? ` · ${failed} failed` : ""}`;
  page.select.value = String(model.get("sheet"));
  const selected = { row: model.get("selected_row"), column: model.get("selected_column") };
  page.all.forEach((plot, member) => {
    if (plot.error) return;
    paint(model, plot.canvas, member, colours);
    put(plot.mark, selected, rows, columns);
    put(plot.over, local.over, rows, columns);
  });
  page.bar(model.get("limit"), false);
  drawLine(model, page, selected);
}

/**
 * One pixel for each cell, which the page stretches.
 *
 * @param {Model} model
 * @param {HTMLCanvasElement} canvas
 * @param {number} member
 * @param {Uint32Array} colours
 */
function paint(model, canvas, member, colours) {
  const [rows, columns] = [model.get("rows").length, model.get("columns").length];
  const values = typed(model.get("numbers"), Float32Array);
  const from = (member * model.get("sheets").length + model.get("sheet")) * rows * columns;
  const image = new ImageData(columns, rows);
  const cells = new Uint32Array(image.data.buffer);
  for (let at = 0; at < cells.length; at++) cells[at] = colours[codeOf(values[from + at], model.get("limit"))];
  canvas.width = columns;
  canvas.height = rows;
  canvas.style.height = `${clamp(rows * 14, 40, 300)}px`;
  contextOf(canvas).putImageData(image, 0, 0);
}

/**
 * Put a frame around a cell.
 *
 * @param {HTMLElement} frame
 * @param {Cell | null} cell
 * @param {number} rows
 * @param {number} columns
 */
function put(frame, cell, rows, columns) {
  frame.hidden = !cell || cell.row < 0 || cell.column < 0;
  if (!cell || frame.hidden) return;
  frame.style.left = `${(100 * cell.column) / columns}%`;
  frame.style.top = `${(100 * cell.row) / rows}%`;
  frame.style.width = `max(2px, ${100 / columns}%)`;
  frame.style.height = `max(2px, ${100 / rows}%)`;
}

/**
 * The selected value over the members; ticks stand where members are.
 *
 * @param {Model} model
 * @param {Page} page
 * @param {Cell} selected
 */
function drawLine(model, page, selected) {
  page.line.hidden = selected.row < 0 || selected.column < 0;
  page.chosen.textContent = page.line.hidden ? "" : named(model, selected);
  const room = page.root.clientWidth - 26;
  if (page.line.hidden || room < 120) return;
  const ink = inkOf(page.root);
  const values = overMembers(model, selected.row, selected.column);
  const finite = values.filter(Number.isFinite);
  const low = Math.min(0, ...finite);
  const high = Math.max(0, ...finite) > low ? Math.max(0, ...finite) : low + 1;
  const [left, right, top, bottom] = [64, room - 24, 12, TALL - 34];
  const context = sized(page.line, room, TALL);
  /** @param {number} value */
  const y = (value) => top + ((high - value) / (high - low)) * (bottom - top);
  const xs = model.get("places").map((place) => left + place * (right - left));
  context.font = `11px ${ink.text}`;
  context.textBaseline = "middle";
  context.strokeStyle = ink.line;
  context.beginPath();
  context.moveTo(left, y(0));
  context.lineTo(right, y(0));
  context.stroke();
  context.fillStyle = ink.soft;
  context.textAlign = "right";
  for (const value of new Set([low, 0, high])) context.fillText(number(value, 3), left - 8, y(value));
  context.strokeStyle = context.fillStyle = ink.accent;
  context.lineWidth = 2;
  context.beginPath();
  let drawn = false;
  values.forEach((value, at) => {
    if (!Number.isFinite(value)) drawn = false;
    else if (drawn) context.lineTo(xs[at], y(value));
    else context.moveTo(xs[at], y(value));
    drawn = Number.isFinite(value);
  });
  context.stroke();
  values.forEach((value, at) => {
    if (!Number.isFinite(value)) return;
    context.beginPath();
    context.arc(xs[at], y(value), 3, 0, 2 * Math.PI);
    context.fill();
  });
  ticksOf(model, context, ink, xs, bottom, right);
  page.line.setAttribute("aria-label", `${named(model, selected)}: ${model.get("labels").map((label, at) => `${label} ${number(values[at], 3)}`).join(", ")}`);
}

/**
 * @param {Model} model
 * @param {CanvasRenderingContext2D} context
 * @param {import("./common").Ink} ink
 * @param {number[]} xs
 * @param {number} bottom
 * @param {number} right
 */
function ticksOf(model, context, ink, xs, bottom, right) {
  context.fillStyle = ink.soft;
  context.strokeStyle = ink.line;
  context.lineWidth = 1;
  context.textAlign = "center";
  let last = -Infinity;
  model.get("ticks").forEach((tick, at) => {
    context.beginPath();
    context.moveTo(xs[at], bottom);
    context.lineTo(xs[at], bottom + 5);
    context.stroke();
    const wide = context.measureText(tick).width;
    if (xs[at] - last < wide + 6) return;
    fitted(context, tick, xs[at], bottom + 13, 120);
    last = xs[at];
  });
  context.textAlign = "right";
  context.fillText(model.get("axis"), right, bottom + 27);
}

export default { render };
