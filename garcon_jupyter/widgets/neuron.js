// @ts-check
import { behindText, element, inkOf, number, pixels, redrawn, sized, tip, token } from "./common.js";

// One neuron from a record. Everything but the histogram is text, so it can be searched and read out.

/** @typedef {import("./traits").Model<import("./traits").Neuron>} Model */
/** @typedef {import("./traits").Example} Example */
/** @typedef {ReturnType<typeof layout>} Page */

/** @type {(keyof import("./traits").Neuron)[]} */
const TRAITS = ["title", "record", "tried", "text", "can_try", "behind", "busy", "trouble"];

/** @param {import("./traits").Place<import("./traits").Neuron>} place */
function render({ model, el }) {
  const page = layout();
  const colours = pixels(model.get("palette"));
  const local = { later: /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined) };
  el.append(page.root);
  const drawing = redrawn(model, page.root, TRAITS, () => draw(model, page, colours));
  page.text.addEventListener("input", () => {
    model.set("text", page.text.value);
    clearTimeout(local.later);
    local.later = setTimeout(() => model.save_changes(), 250);
  });
  page.root.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("[data-unit]") : null;
    if (!link) return;
    model.set("wanted", link.getAttribute("data-unit") ?? "");
    model.save_changes();
  });
  page.root.addEventListener("pointermove", (event) => {
    const piece = event.target instanceof Element ? event.target.closest(".garcon-piece") : null;
    if (piece) page.tip.show(event, token(piece.textContent ?? ""), " ", element("b", {}, number(Number(piece.getAttribute("data-value")))));
    else page.tip.hide();
  });
  page.root.addEventListener("pointerleave", () => page.tip.hide());
  return () => {
    clearTimeout(local.later);
    drawing.end();
    page.root.remove();
  };
}

/** All elements, made once, but for the examples. */
function layout() {
  const title = element("div", { class: "garcon-title" });
  const subtitle = element("div", { class: "garcon-subtitle" });
  const histogram = element("canvas", { role: "img" });
  const up = element("div", { class: "garcon-effects" });
  const down = element("div", { class: "garcon-effects" });
  const others = element("div", { class: "garcon-effects" });
  const text = element("input", { type: "text", placeholder: "a text of your own", "aria-label": "a text of your own", spellcheck: "false" });
  const tried = element("div");
  const examples = element("div");
  const said = element("div", { class: "garcon-said" });
  const connections = element("div", { class: "garcon-columns garcon-connections" });
  const behind = element("button", { class: "garcon-unit", type: "button" });
  /**
   * @param {string} name
   * @param {HTMLElement} node
   */
  const column = (name, node) => element("div", {}, element("h4", {}, name), node);
  const columns = { up: column("raises", up), down: column("lowers", down), others: column("fires with", others), histogram: column("when it fires", histogram) };
  const root = element(
    "div",
    { class: "garcon garcon-live garcon-neuron", "data-lm-suppress-shortcuts": "true" },
    element("div", { class: "garcon-head" }, element("div", { class: "garcon-words" }, title, subtitle), behind),
    said,
    element("div", { class: "garcon-columns" }, columns.histogram, columns.up, columns.down, columns.others),
    text,
    tried,
    connections,
    examples,
  );
  return { root, title, subtitle, histogram, up, down, others, text, tried, examples, said, connections, behind, columns, tip: tip(root) };
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Uint32Array} colours
 */
function draw(model, page, colours) {
  const record = model.get("record");
  const largest = record.largest || 1;
  page.title.textContent = model.get("title");
  page.subtitle.textContent = [...(record.fires ? [record.fires] : []), ...(record.largest === undefined ? [] : [`largest value ${number(record.largest, 4)}`])].join(" · ");
  page.behind.style.display = model.get("behind") ? "" : "none";
  page.behind.textContent = `← ${model.get("behind")}`;
  page.behind.setAttribute("data-unit", model.get("behind"));
  page.text.style.display = model.get("can_try") ? "" : "none";
  page.said.replaceChildren(...(record.said ?? []).map(({ text, by, scores }) => element("div", {}, element("q", {}, text), element("span", {}, [by, scores].filter(Boolean).join(" · ")))));
  drawHistogram(page, record.histogram);
  /** @type {["up" | "down" | "others", import("./traits").Effects | undefined, boolean][]} */
  const columns = [["up", record.up, false], ["down", record.down, true], ["others", record.correlated, false]];
  for (const [name, rows, minus] of columns) {
    page.columns[name].style.display = rows?.length ? "" : "none";
    page[name].replaceChildren(...effects(rows ?? [], minus));
  }
  if (page.text !== document.activeElement && page.text.value !== model.get("text")) page.text.value = model.get("text");
  page.tried.replaceChildren();
  if (model.get("trouble")) page.tried.append(element("div", { class: "garcon-trouble" }, model.get("trouble")));
  else {
    const { tokens, values } = model.get("tried");
    if (tokens && values) page.tried.append(line({ tokens, values }, colours, largest));
  }
  page.connections.replaceChildren(...(record.connections ?? []).map((kind) => connected(kind, model.get("can_open"))));
  page.examples.replaceChildren();
  /**
   * @param {string} title
   * @param {string} note
   * @param {Example[]} examples
   */
  const section = (title, note, examples) => {
    if (!examples.length) return;
    page.examples.append(element("h4", {}, title, element("span", {}, note)), ...examples.map((example) => line(example, colours, largest)));
  };
  section("strongest examples", "", record.top ?? []);
  for (const part of record.intervals ?? []) {
    section(`${number(part.low, 3)} to ${number(part.high, 3)}`, ` · ${part.said}`, part.examples ?? []);
  }
  /** @type {NodeListOf<HTMLElement>} */
  const rows = page.root.querySelectorAll(".garcon-example");
  for (const row of rows) {
    /** @type {HTMLElement | null} */
    const strongest = row.querySelector("[data-strongest]");
    if (strongest) row.scrollLeft = strongest.offsetLeft - row.offsetLeft - row.clientWidth / 2;
  }
}

/**
 * @param {Example} example
 * @param {Uint32Array} colours
 * @param {number} largest
 */
function line({ tokens, values }, colours, largest) {
  const row = element("div", { class: "garcon-example", dir: "ltr", tabindex: "0" });
  const most = Math.max(...values);
  tokens.forEach((piece, place) => {
    const value = values[place];
    const node = element("span", { class: "garcon-piece", "data-value": value }, piece.replaceAll("\n", ""));
    node.style.backgroundColor = behindText(colours, value, largest);
    if (value === most) node.dataset.strongest = "";
    row.append(node);
  });
  return row;
}

/**
 * @param {import("./traits").Effects} rows
 * @param {boolean} minus
 */
function effects(rows, minus) {
  const most = Math.max(...rows.map(([, value]) => Math.abs(value)), 1e-9);
  return rows.map(([word, value]) => {
    const full = element("i");
    full.style.width = `${(Math.abs(value) / most) * 100}%`;
    return element("div", { class: "garcon-effect" }, token(word), element("div", { class: `garcon-bar${minus || value < 0 ? " garcon-minus" : ""}` }, full), element("b", {}, number(value, 3)));
  });
}

/**
 * Connections of one kind; a partner that has a page is a link to it.
 *
 * @param {import("./traits").Connections} kind
 * @param {boolean} links
 */
function connected(kind, links) {
  const most = Math.max(...kind.rows.map(([, value]) => Math.abs(value)), 1e-9);
  const rows = kind.rows.map(([word, value, to]) => {
    const full = element("i");
    full.style.width = `${(Math.abs(value) / most) * 100}%`;
    const name = to && links ? element("button", { class: "garcon-unit", type: "button", "data-unit": to, title: to, "aria-label": to }, word) : to ? element("span", { title: to }, word) : token(word);
    return element("div", { class: "garcon-effect" }, name, element("div", { class: `garcon-bar${value < 0 ? " garcon-minus" : ""}` }, full), element("b", {}, number(value, 3)));
  });
  return element("div", {}, element("h4", {}, kind.name, element("span", {}, ` · ${kind.said}`)), element("div", { class: "garcon-effects" }, ...rows));
}

/**
 * Counts on a logarithmic axis.
 *
 * @param {Page} page
 * @param {import("./traits").NeuronRecord["histogram"]} histogram
 */
function drawHistogram(page, histogram) {
  page.columns.histogram.style.display = histogram?.counts?.length ? "" : "none";
  if (!histogram?.counts?.length) return;
  const width = Math.max(page.columns.histogram.clientWidth, 120);
  const [height, foot] = [110, 16];
  const context = sized(page.histogram, width, height + foot);
  const most = Math.log1p(Math.max(...histogram.counts));
  const pitch = width / histogram.counts.length;
  const ink = inkOf(page.root);
  context.fillStyle = "rgb(32,112,220)";
  histogram.counts.forEach((count, place) => {
    const tall = most ? (Math.log1p(count) / most) * height : 0;
    context.fillRect(place * pitch, height - tall, Math.max(pitch - 1, 1), tall);
  });
  context.fillStyle = ink.line;
  context.fillRect(0, height, width, 1);
  context.fillStyle = ink.soft;
  context.font = `10px ${ink.text}`;
  context.fillText(number(histogram.edges[0], 3), 0, height + 12);
  context.textAlign = "right";
  context.fillText(number(histogram.edges[histogram.edges.length - 1], 3), width, height + 12);
  page.histogram.setAttribute("aria-label", `histogram of positive values, ${histogram.counts.reduce((a, b) => a + b, 0)} tokens`);
}

export default { render };
