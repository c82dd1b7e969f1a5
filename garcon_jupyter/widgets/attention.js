// @ts-check
import { FILLING, assign, blit, button, chooser, clamp, codeOf, colourBar, contextOf, element, filling, fitted, inkOf, number, pixels, plural, progress, redrawn, sized, tip, token, typed } from "./common.js";
import { drawLines, lineAt } from "./lines.js";
import { overviewOf } from "./overview.js";

// All layers, a grid of the heads of one, and one head as a matrix. Thumbnails hold colour codes; the
// open head's weights come from Python when it is opened (attention.py), and until then its thumbnail
// stands in.

/** @typedef {import("./traits").Model<import("./traits").Attention>} Model */
/** @typedef {import("./lines").Pair} Pair */
/** @typedef {import("./lines").Lines} Lines */
/** @typedef {ReturnType<typeof layout> & { overview: ReturnType<typeof overviewOf> }} Page */
/** @typedef {{ over: Pair | null }} Local what is under the pointer */

/** @type {(keyof import("./traits").Attention)[]} */
const TRAITS = ["title", "query_labels", "key_labels", "row", "rows", "heads", "selected_head", "selected_query", "selected_key", "here",
  "limit", "root", "thumbnails", "thumbnail_shape", "matrix", "matrix_head", "layer", "layers", "view", "hide_first", "overview", ...FILLING, "trouble"];

/** @param {import("./traits").Place<import("./traits").Attention>} place */
function render({ model, el }) {
  const colours = pixels(model.get("palette"));
  const get = model.get.bind(model);
  /** @param {Partial<import("./traits").Attention>} values */
  const set = (values) => assign(model, values);
  /**
   * @param {number} layer
   * @param {number} head
   */
  const open = (layer, head) => set({ layer, selected_head: head, overview: false });
  const parts = layout(model, colours);
  /** @type {Page} */
  const page = Object.assign(parts, { overview: overviewOf(model, open, () => drawing.ask(), parts.tip) });
  /** @type {Local} */
  const local = { over: null };
  el.append(page.root);
  page.body.prepend(page.overview.node);
  const smalls = Array.from({ length: get("layers") }, (_, layer) => /** @type {const} */ (`small_${layer}`));
  const drawing = redrawn(model, page.root, [...TRAITS, ...smalls], () => draw(model, page, local, colours));
  /**
   * @param {number} query
   * @param {number} key
   */
  const select = (query, key) => {
    if (!get("query_labels").length) return;
    set({
      selected_query: clamp(query, 0, get("query_labels").length - 1),
      selected_key: clamp(key, 0, get("key_labels").length - 1),
    });
  };

  page.tiles.forEach((tile, head) => {
    tile.addEventListener("click", () => set({ selected_head: head === get("selected_head") ? -1 : head }));
  });
  page.all.addEventListener("click", () => set({ selected_head: -1 }));
  page.every.addEventListener("click", () => set({ selected_head: -1, overview: true }));
  page.view.addEventListener("click", () => set({ view: get("view") === "lines" ? "matrix" : "lines" }));
  const hide = () => set({ hide_first: !get("hide_first") });
  page.first.addEventListener("click", hide);
  /** @param {number} step */
  const turn = (step) => {
    if (get("layers")) set({ layer: clamp(get("layer") + step, 0, get("layers") - 1) });
  };
  page.earlier.addEventListener("click", () => turn(-1));
  page.later.addEventListener("click", () => turn(1));
  page.root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "[") turn(-1);
    if (event.key === "]") turn(1);
    if (event.key === "f") hide();
  });
  page.matrix.addEventListener("pointermove", (event) => {
    local.over = get("view") === "lines" ? lineAt(page.lines, event) : cellAt(model, page, event);
    if (local.over && local.over.query >= 0 && local.over.key >= 0) page.tip.show(event, ...words(model, local.over.query, local.over.key));
    else page.tip.hide();
    drawing.ask();
  });
  page.matrix.addEventListener("pointerleave", () => {
    local.over = null;
    page.tip.hide();
    drawing.ask();
  });
  page.matrix.addEventListener("click", (event) => {
    if (get("view") === "lines") {
      const end = lineAt(page.lines, event);
      if (end) set({ selected_query: end.query === get("selected_query") ? -1 : end.query, selected_key: end.key === get("selected_key") ? -1 : end.key });
      return;
    }
    const cell = cellAt(model, page, event);
    if (cell) select(cell.query, cell.key);
  });
  page.detail.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [query, key] = [get("selected_query"), get("selected_key")];
    /** @type {{ [key: string]: () => void }} */
    const keys = {
      ArrowUp: () => select(query - 1, key),
      ArrowDown: () => select(query + 1, key),
      ArrowLeft: () => select(query, key - 1),
      ArrowRight: () => select(query, key + 1),
      l: () => set({ view: get("view") === "lines" ? "matrix" : "lines" }),
      PageUp: () => set({ selected_head: Math.max(0, get("selected_head") - 1) }),
      PageDown: () => set({ selected_head: Math.min(get("heads") - 1, get("selected_head") + 1) }),
      Escape: () => set({ selected_head: -1 }),
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
 */
function layout(model, colours) {
  const title = element("div", { class: "garcon-title" });
  const subtitle = element("div", { class: "garcon-subtitle" });
  const texts = Array.from({ length: model.get("rows") }, (_, place) => `text ${place}`);
  const rowChooser = chooser("text", texts, 0, model.get("row"), (row) => assign(model, { row }));
  const all = button("all heads", "back to the grid of heads (Escape)");
  const every = button("all layers", "all heads of all layers at a glance");
  const view = element("button", { type: "button", title: "lines between tokens instead of a matrix (l)" }, "lines");
  const first = element("button", { type: "button", title: "leave out the first token, on which many heads rest (f)" }, "hide first token");
  const layers = Array.from({ length: model.get("layers") }, (_, layer) => String(layer));
  const layerChooser = chooser("layer", layers, 0, model.get("layer"), (layer) => assign(model, { layer }));
  const earlier = button("◀", "the layer before ([)");
  const later = button("▶", "the next layer (])");
  if (layers.length > 1) layerChooser.group.append(earlier, later);
  const images = Array.from({ length: model.get("heads") }, () => element("canvas"));
  const tiles = images.map((image, head) =>
    element("button", { type: "button", class: "garcon-tile", "aria-label": `open head ${head}` }, image, `head ${head}`));
  const grid = element("div", { class: "garcon-grid" }, ...tiles);
  const matrix = element("canvas", { class: "garcon-matrix" });
  const detail = element("div", { class: "garcon-detail", tabindex: "0", role: "application" }, matrix);
  const body = element("div", { class: "garcon-body" }, grid, detail);
  const readout = element("div", { class: "garcon-readout", "aria-live": "polite" });
  const fill = filling(model);
  const foot = element("div", { class: "garcon-foot" }, readout, fill.key);
  const bar = colourBar(foot, colours);
  const root = element(
    "div",
    { class: "garcon garcon-live garcon-attention", "data-lm-suppress-shortcuts": "true" },
    element("div", { class: "garcon-head" },
      element("div", { class: "garcon-words" }, title, subtitle),
      element("div", { class: "garcon-tools" }, fill.stop, layerChooser.group, rowChooser.group, first, view, all, every)),
    body,
    foot,
  );
  return {
    gutter: 0, above: 0, cell: 10, lines: /** @type {Lines | null} */ (null), ink: inkOf(root),
    root, title, subtitle, rowChooser, layerChooser, earlier, later, all, every, view, first,
    images, tiles, grid, matrix, detail, body, readout, filling: fill, bar, tip: tip(root),
  };
}

/**
 * The weight of a cell of the open head, or undefined while it is on its way.
 *
 * @param {Model} model
 * @param {number} query
 * @param {number} key
 */
function weightOf(model, query, key) {
  if (model.get("matrix_head") !== model.get("selected_head")) return undefined;
  return typed(model.get("matrix"), Float32Array)[query * model.get("key_labels").length + key];
}

/**
 * @param {Model} model
 * @param {number} query
 * @param {number} key
 */
function words(model, query, key) {
  const weight = weightOf(model, query, key);
  const value = weight === undefined ? "…" : weight === -Infinity ? "masked" : number(weight);
  const offset = model.get("key_labels").length - model.get("query_labels").length;
  return ["query ", token(model.get("query_labels")[query]), ` ${query + offset} → key `, token(model.get("key_labels")[key]), ` ${key}: `,
    element("b", {}, value)];
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {import("./common").Pointer} event
 * @returns {Pair | null}
 */
function cellAt(model, page, event) {
  const key = Math.floor((event.offsetX - page.gutter) / page.cell);
  const query = Math.floor((event.offsetY - page.above) / page.cell);
  const inside = key >= 0 && query >= 0 && key < model.get("key_labels").length && query < model.get("query_labels").length;
  return inside ? { query, key } : null;
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @param {Uint32Array} colours
 */
function draw(model, page, local, colours) {
  page.ink = inkOf(page.root);
  const every = model.get("overview");
  const head = every ? -1 : model.get("selected_head");
  const [queries, keys] = [model.get("query_labels"), model.get("key_labels")];
  page.title.textContent = model.get("title") || "attention";
  page.rowChooser.select.value = String(model.get("row"));
  page.layerChooser.select.value = String(model.get("layer"));
  page.view.setAttribute("aria-pressed", String(model.get("view") === "lines"));
  page.first.setAttribute("aria-pressed", String(model.get("hide_first")));
  page.view.style.display = head >= 0 ? "" : "none";
  const empty = !model.get("thumbnails").byteLength;
  page.subtitle.textContent = empty ? "Nothing to draw: no values." : subtitle(model, page, head);
  page.overview.node.style.display = every ? "" : "none";
  page.grid.style.display = every ? "none" : "";
  page.every.style.display = every || model.get("layers") < 2 ? "none" : "";
  page.layerChooser.group.style.display = every || model.get("layers") < 2 ? "none" : "";
  page.all.style.display = head >= 0 ? "" : "none";
  page.detail.style.display = head >= 0 ? "" : "none";
  page.body.classList.toggle("garcon-open", head >= 0);
  page.filling.show(every && page.overview.loaded() < model.get("layers"));
  if (every) page.overview.draw(page.ink, colours);
  else drawTiles(model, page, colours, head);
  if (head >= 0 && !empty && model.get("view") === "lines") drawLines(model, page, local, (query, key) => hidden(model, query, key));
  else if (head >= 0 && !empty) drawMatrix(model, page, local, colours, queries, keys);
  readout(model, page, head, queries, keys);
  page.bar(model.get("limit"), model.get("root"));
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {number} head
 */
function subtitle(model, page, head) {
  const [layers, heads, layer] = [model.get("layers"), model.get("heads"), model.get("layer")];
  const size = `${model.get("query_labels").length} query × ${model.get("key_labels").length} key tokens`;
  if (model.get("overview")) {
    const loaded = page.overview.loaded();
    return `${layers} layers × ${heads} heads · ${size}${loaded < layers ? ` · ${loaded} layers loaded${progress(model)}` : ""}`;
  }
  const what = head >= 0 ? `head ${head} of ${heads}` : plural(heads, "head");
  return `${what} · ${size}${layers && model.get("here") !== layer ? ` · loading layer ${layer} …` : ""}`;
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {number} head
 * @param {string[]} queries
 * @param {string[]} keys
 */
function readout(model, page, head, queries, keys) {
  const [query, key] = [model.get("selected_query"), model.get("selected_key")];
  page.readout.replaceChildren();
  if (model.get("trouble")) page.readout.append(element("span", { class: "garcon-trouble" }, model.get("trouble")));
  else if (model.get("overview")) page.readout.append("Each row of tiles: a layer, with a tile for each head. Click a tile to open it.");
  else if (head < 0) page.readout.append("Each tile: query tokens down, key tokens across. Click a head to open it.");
  else if (query < 0 || key < 0 || query >= queries.length || key >= keys.length) page.readout.append("Click a cell or use the arrow keys; Page Up and Page Down change the head.");
  else page.readout.append(...words(model, query, key));
}

/**
 * The thumbnail of a head as an image of its colour codes. While a layer is on its way, that of the overview stands in.
 *
 * @param {Model} model
 * @param {Uint32Array} colours
 * @param {number} head
 */
function thumbnail(model, colours, head) {
  const come = !model.get("layers") || model.get("here") === model.get("layer");
  const [rows, columns] = model.get(come ? "thumbnail_shape" : "small_shape");
  const image = new ImageData(Math.max(columns, 1), Math.max(rows, 1));
  const ink = new Uint32Array(image.data.buffer);
  const codes = typed(model.get(come ? "thumbnails" : `small_${model.get("layer")}`), Uint8Array).subarray(head * rows * columns, (head + 1) * rows * columns);
  codes.forEach((code, place) => (ink[place] = colours[code]));
  return image;
}

/**
 * Tiles side by side, for rows of equal length; as numbers.across in Python.
 *
 * @param {number} tiles
 * @param {number} widest most in a row
 */
export function across(tiles, widest) {
  return tiles ? Math.ceil(tiles / Math.ceil(tiles / widest)) : 1;
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Uint32Array} colours
 * @param {number} head
 */
function drawTiles(model, page, colours, head) {
  const widest = Math.max(1, Math.floor(page.body.clientWidth / 124));
  page.grid.style.gridTemplateColumns = `repeat(${head >= 0 ? 2 : across(page.tiles.length, widest)}, minmax(0, 190px))`;
  page.tiles.forEach((tile, place) => {
    const image = thumbnail(model, colours, place);
    const canvas = page.images[place];
    canvas.width = image.width;
    canvas.height = image.height;
    contextOf(canvas).putImageData(image, 0, 0);
    tile.setAttribute("aria-pressed", String(place === head));
  });
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @param {Uint32Array} colours
 * @param {string[]} queries
 * @param {string[]} keys
 */
function drawMatrix(model, page, local, colours, queries, keys) {
  const measure = contextOf(page.matrix);
  const room = page.detail.clientWidth;
  if (!room) return;
  /** @param {number} size */
  const font = (size) => `${size}px ${page.ink.code}`;
  measure.font = font(11.5);
  const widest = Math.max(...keys.map((label) => measure.measureText(label.slice(0, 24)).width), 8);
  page.gutter = Math.round(clamp(widest + 12, 30, 130));
  page.above = Math.round(clamp(widest * 0.8 + 14, 30, 104));
  const tail = Math.round(page.above * 0.7); // the last slanted label leans out to the right
  const wide = Math.floor((room - page.gutter - tail) / keys.length);
  const tall = Math.max(12, Math.floor((690 - page.above) / queries.length)); // whole in view, while readable
  page.cell = clamp(Math.min(wide, tall), 4, 42);
  const [width, height] = [keys.length * page.cell, queries.length * page.cell];
  const context = sized(page.matrix, page.gutter + width + tail, page.above + height + 2);
  blit(context, headImage(model, colours, queries.length, keys.length), page.gutter, page.above, width, height);
  if (page.cell >= 9) {
    for (let key = 1; key < keys.length; key++) context.clearRect(page.gutter + key * page.cell - 0.5, page.above, 1, height);
    for (let query = 1; query < queries.length; query++) context.clearRect(page.gutter, page.above + query * page.cell - 0.5, width, 1);
  }
  context.lineWidth = 1;
  context.strokeStyle = page.ink.line;
  context.strokeRect(page.gutter + 0.5, page.above + 0.5, width - 1, height - 1);
  labelMatrix(model, page, local, context, queries, keys, font(clamp(page.cell * 0.8, 9, 11.5)));
  /**
   * @param {Pair} cell
   * @param {string} colour
   * @param {number} line
   */
  const outline = (cell, colour, line) => {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.strokeRect(page.gutter + cell.key * page.cell, page.above + cell.query * page.cell, page.cell, page.cell);
  };
  if (local.over) outline(local.over, page.ink.soft, 1);
  const selected = { query: model.get("selected_query"), key: model.get("selected_key") };
  if (selected.query >= 0 && selected.key >= 0) outline(selected, page.ink.ink, 2);
}

/**
 * Whether a cell is of the first token, as attention.without_first in Python: as a key, and as the query that sees
 * nothing else.
 *
 * @param {number} queries
 * @param {number} keys
 * @param {number} query
 * @param {number} key
 */
export function ofFirst(queries, keys, query, key) {
  return keys >= 2 && (key === 0 || (query === 0 && queries === keys));
}

/**
 * Whether a cell is left out.
 *
 * @param {Model} model
 * @param {number} query
 * @param {number} key
 */
function hidden(model, query, key) {
  return model.get("hide_first") && ofFirst(model.get("query_labels").length, model.get("key_labels").length, query, key);
}

/**
 * @param {Model} model
 * @param {Uint32Array} colours
 * @param {number} queries
 * @param {number} keys
 */
function headImage(model, colours, queries, keys) {
  const head = model.get("selected_head");
  if (model.get("matrix_head") !== head) return thumbnail(model, colours, head);
  const weights = typed(model.get("matrix"), Float32Array);
  const [limit, root] = [model.get("limit"), model.get("root")];
  const image = new ImageData(keys, queries);
  const ink = new Uint32Array(image.data.buffer);
  weights.forEach((weight, place) => {
    if (weight !== -Infinity && !hidden(model, Math.floor(place / keys), place % keys)) ink[place] = colours[codeOf(weight, limit, root)]; // masked: empty
  });
  return image;
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @param {CanvasRenderingContext2D} context
 * @param {string[]} queries
 * @param {string[]} keys
 * @param {string} font
 */
function labelMatrix(model, page, local, context, queries, keys, font) {
  const every = Math.max(1, Math.ceil(11 / page.cell));
  const strongQuery = local.over?.query ?? model.get("selected_query");
  const strongKey = local.over?.key ?? model.get("selected_key");
  context.textBaseline = "middle";
  context.direction = "ltr";
  /** @param {boolean} strong */
  const style = (strong) => {
    context.font = strong ? `600 ${font}` : font;
    context.fillStyle = strong ? page.ink.ink : page.ink.soft;
  };
  // Where not every label has room, the marked one is shown instead of its neighbours.
  /**
   * @param {number} place
   * @param {number} strong
   */
  const shown = (place, strong) => place === strong || (place % every === 0 && (every === 1 || Math.abs(place - strong) >= every || strong < 0));
  queries.forEach((label, query) => {
    if (!shown(query, strongQuery)) return;
    style(query === strongQuery);
    context.textAlign = "right";
    fitted(context, label, page.gutter - 6, page.above + (query + 0.5) * page.cell, page.gutter - 8);
  });
  keys.forEach((label, key) => {
    if (!shown(key, strongKey)) return;
    style(key === strongKey);
    context.save();
    context.translate(page.gutter + (key + 0.5) * page.cell, page.above - 6);
    context.rotate(-Math.PI / 4);
    context.textAlign = "left";
    fitted(context, label, 0, 0, (page.above - 10) * 1.4);
    context.restore();
  });
}

export default { render };
