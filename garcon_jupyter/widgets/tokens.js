// @ts-check
import { assign, bars, behindText, clamp, codeOf, css, element, inkOf, number, pixels, plural, redrawn, scaleBar, sized, tip, token, typed } from "./common.js";

// A text in which every token is an element: the browser breaks lines and orders directions. Colour
// is the background, so that a text of thousands is coloured anew without being laid out anew.

/** @typedef {import("./traits").Model<import("./traits").Tokens>} Model */
/** @typedef {ReturnType<typeof layout>} Page */

/** @type {(keyof import("./traits").Tokens)[]} */
const TRAITS = ["title", "metric", "metrics", "numbers", "limits", "selected_token", "busy", "trouble"];

/** @param {import("./traits").Place<import("./traits").Tokens>} place */
function render({ model, el }) {
  const colours = pixels(model.get("palette"));
  const page = layout(model, colours);
  el.append(page.root);
  const get = model.get.bind(model);
  /** @param {Partial<import("./traits").Tokens>} values */
  const set = (values) => assign(model, values);
  const write = () => {
    page.spans = get("pieces").map((piece, place) => span(piece, place));
    page.text.replaceChildren(...page.spans);
    drawing.ask();
  };
  const drawing = redrawn(model, page.root, TRAITS, () => draw(model, page, colours));
  write();
  model.on("change:pieces", write);

  /** @param {number} place */
  const select = (place) => {
    if (!page.spans.length) return;
    place = clamp(place, 0, page.spans.length - 1);
    set({ selected_token: place });
    reveal(page, page.spans[place]);
  };
  /** @param {Event} event */
  const placeOf = (event) => {
    const piece = event.target instanceof Element ? event.target.closest(".garcon-piece") : null;
    return Number(piece?.getAttribute("data-place") ?? -1);
  };
  page.text.addEventListener("pointermove", (event) => {
    const place = placeOf(event);
    if (place < 0) page.tip.hide();
    else page.tip.show(event, ...told(model, place));
  });
  page.text.addEventListener("pointerleave", () => page.tip.hide());
  page.text.addEventListener("click", (event) => {
    const place = placeOf(event);
    if (place >= 0) set({ selected_token: place === get("selected_token") ? -1 : place });
  });
  page.strip.addEventListener("click", (event) => select(Math.floor((event.offsetX / page.strip.clientWidth) * page.spans.length)));
  page.text.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = get("selected_token");
    /** @type {{ [key: string]: () => void }} */
    const keys = {
      ArrowRight: () => select(at + 1),
      ArrowLeft: () => select(at < 0 ? 0 : at - 1),
      ArrowDown: () => select(beside(page, at, 1)),
      ArrowUp: () => select(beside(page, at, -1)),
      Home: () => select(0),
      End: () => select(page.spans.length - 1),
      m: () => set({ metric: (get("metric") + 1) % get("metrics").length }),
      Escape: () => set({ selected_token: -1 }),
    };
    if (!keys[event.key]) return;
    keys[event.key]();
    event.preventDefault();
    event.stopPropagation(); // else the notebook takes the arrows for its own
  });
  return () => {
    model.off("change:pieces", write);
    drawing.end();
    page.root.remove();
  };
}

/**
 * All elements, made once, but for the tokens.
 *
 * @param {Model} model
 * @param {Uint32Array} colours
 */
function layout(model, colours) {
  const title = element("div", { class: "garcon-title" });
  const subtitle = element("div", { class: "garcon-subtitle" });
  const metrics = model.get("metrics").map((name, metric) => {
    const choice = element("button", { type: "button" }, name);
    choice.addEventListener("click", () => assign(model, { metric }));
    return choice;
  });
  const text = element("div", { class: "garcon-text", tabindex: "0", role: "application", dir: "auto" });
  const strip = element("canvas", { class: "garcon-strip", "aria-hidden": "true" });
  const readout = element("div", { class: "garcon-readout", "aria-live": "polite" });
  const foot = element("div", { class: "garcon-foot" }, readout);
  const bar = scaleBar(foot, colours);
  const root = element(
    "div",
    { class: "garcon garcon-live garcon-tokens", "data-lm-suppress-shortcuts": "true" },
    element("div", { class: "garcon-head" },
      element("div", { class: "garcon-words" }, title, subtitle),
      element("div", { class: "garcon-tools", role: "group", "aria-label": "metric" }, ...(metrics.length > 1 ? metrics : []))),
    text,
    strip,
    foot,
  );
  return {
    spans: /** @type {HTMLElement[]} */ ([]), shown: -1,
    root, title, subtitle, metrics, text, strip, readout, bar, tip: tip(root),
  };
}

/**
 * One token; the sign of a line break is softer than the text.
 *
 * @param {string} piece
 * @param {number} place
 */
function span(piece, place) {
  const node = element("span", { class: "garcon-piece", "data-place": place });
  piece.split("⏎").forEach((part, number) => {
    if (number) node.append(element("span", { class: "garcon-break" }, "⏎"));
    node.append(part);
  });
  return node;
}

/**
 * The values of a metric.
 *
 * @param {Model} model
 * @param {number} metric
 */
function rowOf(model, metric) {
  const tokens = model.get("pieces").length;
  return typed(model.get("numbers"), Float32Array).subarray(metric * tokens, (metric + 1) * tokens);
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Uint32Array} colours
 */
function draw(model, page, colours) {
  const metric = model.get("metric");
  const values = rowOf(model, metric);
  const limit = model.get("limits")[metric] ?? 1;
  const chosen = model.get("selected_token");
  page.title.textContent = model.get("title") || "tokens";
  page.subtitle.textContent = `${plural(values.length, "token")} · ${model.get("metrics")[metric] ?? ""}`;
  page.metrics.forEach((choice, place) => choice.setAttribute("aria-pressed", String(place === metric)));
  page.text.setAttribute("aria-label", `${page.title.textContent}, coloured by ${model.get("metrics")[metric]}. Arrow keys walk from token to token.`);
  page.spans.forEach((node, place) => {
    node.style.backgroundColor = behindText(colours, values[place], limit);
    node.classList.toggle("garcon-chosen", place === chosen);
  });
  if (chosen !== page.shown && page.spans[chosen]) reveal(page, page.spans[chosen]);
  page.shown = chosen;
  drawStrip(page, colours, values, limit, chosen);
  const signed = values.some((value) => value < 0);
  /** @type {[number, string][]} */
  const ticks = (signed ? [-limit, 0, limit] : [0, limit / 2, limit]).map((value, place) => [place / 2, number(value, 3)]);
  page.bar(signed ? 1 : 128, ticks);
  page.readout.replaceChildren();
  if (model.get("trouble")) page.readout.append(element("span", { class: "garcon-trouble" }, model.get("trouble")));
  else if (page.spans[chosen]) page.readout.append(...told(model, chosen));
  else page.readout.append("Point at a token; click or use the arrow keys to select one.");
}

/**
 * A bar for every token, for finding one's way in a long text.
 *
 * @param {Page} page
 * @param {Uint32Array} colours
 * @param {Float32Array} values
 * @param {number} limit
 * @param {number} chosen
 */
function drawStrip(page, colours, values, limit, chosen) {
  const width = page.text.clientWidth;
  if (!width || !values.length) return;
  const height = 26;
  const context = sized(page.strip, width, height);
  const signed = values.some((value) => value < 0);
  const [zero, room] = signed ? [height / 2, height / 2] : [height, height];
  const pitch = width / values.length;
  const ink = inkOf(page.root);
  values.forEach((value, place) => {
    if (Number.isNaN(value)) return;
    const tall = clamp(value / limit, -1, 1) * room;
    context.fillStyle = css(colours[codeOf(value, limit)], 1, 0.35);
    context.fillRect(place * pitch, zero - Math.max(tall, 0), Math.max(pitch - (pitch > 4 ? 1 : 0), 0.5), Math.abs(tall));
  });
  context.fillStyle = ink.line;
  context.fillRect(0, zero - (signed ? 0 : 1), width, 1);
  if (chosen >= 0) {
    context.strokeStyle = ink.ink;
    context.strokeRect(chosen * pitch - 0.5, 0.5, Math.max(pitch, 3), height - 1);
  }
}

/**
 * Values and predictions of a token, for the tip and the readout.
 *
 * @param {Model} model
 * @param {number} place
 */
function told(model, place) {
  /** @type {import("./common").Nodes} */
  const nodes = [token(model.get("pieces")[place].replaceAll("\n", "")), ` token ${place} `];
  model.get("metrics").forEach((name, metric) => {
    nodes.push(element("span", { class: "garcon-fact" }, `${name} `, element("b", {}, number(rowOf(model, metric)[place]))));
  });
  const predicted = typed(model.get("predicted"), Int32Array);
  const most = predicted.length / Math.max(model.get("pieces").length, 1);
  const probabilities = typed(model.get("probabilities"), Float32Array);
  /** @type {import("./traits").Chance[]} */
  const rows = [];
  for (let rank = 0; rank < most; rank++) {
    const word = predicted[place * most + rank];
    if (word >= 0) rows.push([model.get("words")[word], probabilities[place * most + rank]]);
  }
  if (rows.length) nodes.push(bars("then", rows));
  return nodes;
}

/**
 * Scroll the text, and nothing else, until an element is in view.
 *
 * @param {Page} page
 * @param {HTMLElement} node
 */
function reveal(page, node) {
  const [box, line] = [page.text.getBoundingClientRect(), node.getBoundingClientRect()];
  if (line.top < box.top) page.text.scrollTop -= box.top - line.top + 20;
  else if (line.bottom > box.bottom) page.text.scrollTop += line.bottom - box.bottom + 20;
}

/**
 * The token nearest below (or above) a token, on another line.
 *
 * @param {Page} page
 * @param {number} at
 * @param {1 | -1} step
 */
function beside(page, at, step) {
  if (at < 0) return 0;
  const from = page.spans[at].getClientRects()[0];
  let best = at;
  let least = Infinity;
  for (let place = at + step; page.spans[place]; place += step) {
    const to = page.spans[place].getClientRects()[0];
    if (Math.abs(to.top - from.top) < 4) continue;
    if (best !== at && Math.abs(to.top - page.spans[best].getClientRects()[0].top) > 4) break;
    const away = Math.abs(to.left - from.left);
    if (away < least) [best, least] = [place, away];
  }
  return best;
}

export default { render };
