// @ts-check
import { assign, behindText, clamp, codeOf, css, element, inkOf, number, pixels, plural, redrawn, sized, tip, token, typed } from "./common.js";

// What moved a neuron: its timeline on a canvas, and tokens, flips and data as text, which can be searched and read out.

/** @typedef {import("./traits").Model<import("./traits").Moves>} Model */
/** @typedef {{ over: number, seen: boolean }} Local */
/** @typedef {ReturnType<typeof layout>} Page */

/** @type {(keyof import("./traits").Moves)[]} */
const TRAITS = ["title", "subtitle", "moves", "names", "texts", "tokens", "flips", "limit", "selected", "live", "trouble"];

const [HIGH, GUTTER, REACH, LISTED] = [170, 54, 8, 12];

/** @param {import("./traits").Place<import("./traits").Moves>} place */
function render({ model, el }) {
  const colours = pixels(model.get("palette"));
  /** @type {Local} */
  const local = { over: -1, seen: false };
  const page = layout();
  el.append(page.root);
  const drawing = redrawn(model, page.root, TRAITS, () => draw(model, page, local, colours));
  /** @param {MouseEvent} event */
  const under = (event) => {
    const area = page.canvas.getBoundingClientRect();
    return nearestMove(spots(model, page.line.clientWidth), event.clientX - area.left, event.clientY - area.top);
  };
  page.line.addEventListener("pointermove", (event) => {
    local.over = under(event);
    if (local.over < 0) page.tip.hide();
    else page.tip.show(event, element("b", {}, `${model.get("names")[local.over]}: ${number(moveAt(model, local.over).value, 4)}`), element("div", {}, textOf(model, local.over).join(" ")));
    drawing.ask();
  });
  page.line.addEventListener("pointerleave", () => {
    local.over = -1;
    page.tip.hide();
    drawing.ask();
  });
  page.line.addEventListener("click", (event) => assign(model, { selected: under(event) }));
  page.line.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const last = model.get("names").length - 1;
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") assign(model, { selected: clamp(model.get("selected") + (event.key === "ArrowRight" ? 1 : -1), 0, last) });
    else if (event.key === "Escape") assign(model, { selected: -1 });
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  const watch = new IntersectionObserver(([entry]) => {
    local.seen = entry.isIntersecting;
  });
  watch.observe(page.root);
  const looking = setInterval(() => {
    if (model.get("live") && local.seen && !document.hidden && !model.get("busy")) model.send({ do: "look" });
  }, 2000);
  return () => {
    clearInterval(looking);
    watch.disconnect();
    drawing.end();
    page.root.remove();
  };
}

function layout() {
  const title = element("div", { class: "garcon-title" });
  const subtitle = element("div", { class: "garcon-subtitle", role: "status" });
  const canvas = element("canvas", { role: "img" });
  const line = element("div", { class: "garcon-timeline", tabindex: 0, role: "application", "aria-label": "moves over time" }, canvas);
  const lifts = element("div");
  const flips = element("div");
  const data = element("div", { "aria-live": "polite" });
  const root = element(
    "div",
    { class: "garcon garcon-live garcon-moves" },
    element("div", { class: "garcon-head" }, element("div", { class: "garcon-words" }, title, subtitle)),
    line,
    element("div", { class: "garcon-columns" }, lifts, flips),
    data,
  );
  return { root, title, subtitle, canvas, line, lifts, flips, data, tip: tip(root) };
}

/**
 * @param {Model} model
 * @param {number} at
 */
function moveAt(model, at) {
  const table = typed(model.get("moves"), Float32Array);
  return { step: table[3 * at], value: table[3 * at + 1], text: table[3 * at + 2] };
}

/**
 * @param {Model} model
 * @param {number} at
 * @returns {string[]}
 */
function textOf(model, at) {
  return model.get("texts")[moveAt(model, at).text] ?? [];
}

/**
 * Where each move is, in pixels.
 *
 * @param {Model} model
 * @param {number} width
 */
function spots(model, width) {
  const moves = model.get("names").map((_, at) => moveAt(model, at));
  const last = Math.max(1, ...moves.map((move) => move.step));
  return moves.map((move) => ({ x: GUTTER + ((width - GUTTER - 8) * move.step) / last, y: HIGH / 2 - (move.value / model.get("limit")) * (HIGH / 2 - 6) }));
}

/**
 * The move nearest to a place, within reach; −1 where none is.
 *
 * @param {{ x: number, y: number }[]} places
 * @param {number} x
 * @param {number} y
 */
export function nearestMove(places, x, y) {
  let [best, least] = [-1, REACH];
  places.forEach((spot, at) => {
    const far = Math.hypot(spot.x - x, spot.y - y);
    if (far < least) [best, least] = [at, far];
  });
  return best;
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @param {Uint32Array} colours
 */
function draw(model, page, local, colours) {
  page.title.textContent = model.get("title");
  page.subtitle.textContent = model.get("trouble") || model.get("subtitle");
  timeline(model, page, local, colours);
  const tokens = model.get("tokens");
  const most = Math.max(1e-9, ...tokens.map(([, lift]) => lift));
  page.lifts.replaceChildren(
    ...(tokens.length ? [element("h4", {}, "tokens of its data, over those of all")] : []),
    ...tokens.map(([word, lift, said]) => {
      const full = element("i");
      full.style.width = `${(100 * lift) / most}%`;
      return element("div", { class: "garcon-lift" }, token(word), element("div", {}, full), `× ${number(lift, 3)} · ${said}`);
    }),
  );
  const flips = model.get("flips");
  page.flips.replaceChildren(...(flips.length ? [element("h4", {}, "predictions that change without it")] : []), ...flips.map(flipped));
  list(model, page, colours);
}

/** @param {import("./traits").Flip} flip */
function flipped(flip) {
  const places = flip.places.map(([before, one, two, after]) => element("div", {}, element("q", {}, `… ${before} `), "(", element("b", {}, one), " | ", element("em", {}, two), ")", element("q", {}, ` ${after} …`)));
  return element("details", { class: "garcon-flip" }, element("summary", {}, token(flip.token), ` ${flip.said}`), ...places);
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @param {Uint32Array} colours
 */
function timeline(model, page, local, colours) {
  const width = page.line.clientWidth;
  if (width < 120) return;
  const context = sized(page.canvas, width, HIGH + 18);
  const ink = inkOf(page.root);
  const limit = model.get("limit");
  context.fillStyle = ink.line;
  context.fillRect(GUTTER, HIGH / 2, width - GUTTER, 1);
  context.fillStyle = ink.soft;
  context.font = `10px ${ink.text}`;
  context.textAlign = "right";
  context.fillText(number(limit, 3), GUTTER - 6, 14);
  context.fillText(number(-limit, 3), GUTTER - 6, HIGH - 4);
  const last = Math.max(1, ...model.get("names").map((_, at) => moveAt(model, at).step));
  context.fillText(`step ${last}`, width - 4, HIGH + 13);
  context.textAlign = "left";
  context.fillText("step 0", GUTTER, HIGH + 13);
  spots(model, width).forEach((spot, at) => {
    const marked = at === model.get("selected") || at === local.over;
    context.beginPath();
    context.arc(spot.x, spot.y, marked ? 4.5 : 3, 0, 2 * Math.PI);
    context.fillStyle = css(colours[codeOf(moveAt(model, at).value, limit)], 1, 0.25);
    context.fill();
    if (!marked) return;
    context.strokeStyle = at === local.over ? ink.accent : ink.ink;
    context.stroke();
  });
  page.canvas.setAttribute("aria-label", `${plural(model.get("names").length, "move")}, the last in step ${last}`);
}

/**
 * The data, the selected first, then those that moved it most.
 *
 * @param {Model} model
 * @param {Page} page
 * @param {Uint32Array} colours
 */
function list(model, page, colours) {
  const selected = model.get("selected");
  const order = model.get("names").map((_, at) => at).sort((one, two) => Math.abs(moveAt(model, two).value) - Math.abs(moveAt(model, one).value));
  if (selected >= 0) order.unshift(selected);
  const seen = new Set();
  const rows = order.filter((at) => textOf(model, at).length && !seen.has(moveAt(model, at).text) && seen.add(moveAt(model, at).text)).slice(0, LISTED);
  const notable = new Set(model.get("tokens").map(([word]) => word.trim()));
  page.data.replaceChildren(
    ...(rows.length ? [element("h4", {}, "the data that moved it most, coloured by gradient")] : []),
    ...rows.map((at) => {
      const { value } = moveAt(model, at);
      const pieces = textOf(model, at).flatMap((piece) => [notable.has(piece.trim()) ? element("u", {}, piece) : piece, " "]);
      const text = element("span", {}, ...pieces);
      text.style.backgroundColor = behindText(colours, value, model.get("limit"));
      const row = element("div", { class: "garcon-datum", title: number(value, 4) }, element("div", {}, model.get("names")[at]), text);
      if (at === selected) row.dataset.chosen = "";
      row.addEventListener("click", () => assign(model, { selected: at }));
      return row;
    }),
  );
}

export default { render };
