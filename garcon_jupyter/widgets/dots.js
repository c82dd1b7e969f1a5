// @ts-check
import { assign, button, clamp, css, element, inkOf, pixels, plural, redrawn, sized, tip, token, typed } from "./common.js";

// Dots on a map, each with a text; a click selects one, a line drawn around them several.

/** @typedef {import("./traits").Model<import("./traits").Dots>} Model */
/** @typedef {{ x: number, y: number }} Spot */
/** @typedef {{ zoom: number, middle: Spot | null, over: number, line: Spot[] | null }} Local */
/** @typedef {ReturnType<typeof layout>} Page */

/** @type {(keyof import("./traits").Dots)[]} */
const TRAITS = ["title", "subtitle", "names", "texts", "places", "codes", "selected", "trouble"];

const [TALL, REACH, LISTED] = [460, 9, 12];

/** @param {import("./traits").Place<import("./traits").Dots>} place */
function render({ model, el }) {
  const colours = pixels(model.get("palette"));
  /** @type {Local} */
  const local = { zoom: 1, middle: null, over: -1, line: null };
  /** @param {number} factor how much larger; 0 shows all */
  const zoom = (factor) => {
    local.zoom = factor ? clamp(local.zoom * factor, 1, 64) : 1;
    local.middle = middleOf(model, local.zoom === 1 ? [] : model.get("selected")) ?? local.middle;
    drawing.ask();
  };
  const page = layout(zoom);
  el.append(page.root);
  const drawing = redrawn(model, page.root, TRAITS, () => draw(model, page, local, colours));
  /**
   * @param {number[]} dots
   * @param {boolean} more whether what is selected stays so
   */
  const select = (dots, more) => assign(model, { selected: [...new Set(more ? [...model.get("selected"), ...dots] : dots)].sort((a, b) => a - b) });
  page.map.addEventListener("pointerdown", (event) => {
    page.map.setPointerCapture(event.pointerId);
    local.line = [spotOf(page, event)];
  });
  page.map.addEventListener("pointermove", (event) => {
    const spot = spotOf(page, event);
    if (local.line) local.line.push(spot);
    local.over = local.line ? -1 : nearest(spotsOf(model, page, local), spot);
    if (local.over < 0) page.tip.hide();
    else page.tip.show(event, ...told(model, local.over));
    drawing.ask();
  });
  page.map.addEventListener("pointerup", (event) => {
    const [spots, line] = [spotsOf(model, page, local), local.line ?? []];
    local.line = null;
    const far = line.some((spot) => Math.hypot(spot.x - line[0].x, spot.y - line[0].y) > 5);
    const one = nearest(spots, spotOf(page, event));
    if (far) select(spots.map((_, dot) => dot).filter((dot) => within(line, spots[dot])), event.shiftKey);
    else select(one < 0 ? [] : [one], event.shiftKey);
  });
  page.map.addEventListener("pointerleave", () => {
    local.over = -1;
    page.tip.hide();
    drawing.ask();
  });
  page.map.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    /** @type {{ [key: string]: [number, number] }} */
    const ways = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
    const way = ways[event.key];
    if (way) {
      const next = towards(spotsOf(model, page, local), model.get("selected").at(-1) ?? -1, way);
      if (next >= 0) select([next], event.shiftKey);
    } else if (event.key === "+") zoom(2);
    else if (event.key === "-") zoom(0.5);
    else if (event.key === "0") zoom(0);
    else if (event.key === "Escape") select([], false);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  return () => {
    drawing.end();
    page.root.remove();
  };
}

/** @param {(factor: number) => void} zoom */
function layout(zoom) {
  const root = element("div", { class: "garcon garcon-live garcon-dots" });
  const title = element("div", { class: "garcon-title" });
  const subtitle = element("div", { class: "garcon-subtitle" });
  const tools = element("div", { class: "garcon-tools" }, button("+", "larger, about what is selected", () => zoom(2)), button("−", "smaller", () => zoom(0.5)), button("all", "show all dots", () => zoom(0)));
  const map = element("div", { class: "garcon-map", tabindex: 0, role: "application", "aria-label": "map of dots" });
  const canvas = element("canvas", { role: "img" });
  map.append(canvas);
  const chosen = element("div", { class: "garcon-chosen", "aria-live": "polite" });
  root.append(element("div", { class: "garcon-head" }, element("div", { class: "garcon-words" }, title, subtitle), tools), map, chosen);
  return { root, title, subtitle, map, canvas, chosen, tip: tip(root) };
}

/**
 * @param {Page} page
 * @param {MouseEvent} event
 * @returns {Spot}
 */
function spotOf(page, event) {
  const area = page.canvas.getBoundingClientRect();
  return { x: event.clientX - area.left, y: event.clientY - area.top };
}

/**
 * The middle of some dots, on the map's own axes; null of none.
 *
 * @param {Model} model
 * @param {number[]} dots
 * @returns {Spot | null}
 */
function middleOf(model, dots) {
  const places = typed(model.get("places"), Float32Array);
  const sum = dots.reduce((so, dot) => ({ x: so.x + places[2 * dot], y: so.y + places[2 * dot + 1] }), { x: 0, y: 0 });
  return dots.length ? { x: sum.x / dots.length, y: sum.y / dots.length } : null;
}

/**
 * Where each dot is on the page, in pixels: one scale for both axes.
 *
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @returns {Spot[]}
 */
function spotsOf(model, page, local) {
  const places = typed(model.get("places"), Float32Array);
  const width = page.map.clientWidth;
  const [low, high] = [{ x: Infinity, y: Infinity }, { x: -Infinity, y: -Infinity }];
  for (let at = 0; at < places.length; at += 2) {
    [low.x, high.x] = [Math.min(low.x, places[at]), Math.max(high.x, places[at])];
    [low.y, high.y] = [Math.min(low.y, places[at + 1]), Math.max(high.y, places[at + 1])];
  }
  const scale = local.zoom * Math.min((width - 24) / (high.x - low.x || 1), (TALL - 24) / (high.y - low.y || 1));
  const middle = (local.zoom > 1 && local.middle) || { x: (low.x + high.x) / 2, y: (low.y + high.y) / 2 };
  return model.get("names").map((_, dot) => ({
    x: width / 2 + (places[2 * dot] - middle.x) * scale,
    y: TALL / 2 - (places[2 * dot + 1] - middle.y) * scale,
  }));
}

/**
 * The dot nearest to a spot, within reach; −1 where none is.
 *
 * @param {Spot[]} spots
 * @param {Spot} to
 */
export function nearest(spots, to) {
  let [best, least] = [-1, REACH];
  spots.forEach((spot, dot) => {
    const far = Math.hypot(spot.x - to.x, spot.y - to.y);
    if (far < least) [best, least] = [dot, far];
  });
  return best;
}

/**
 * The nearest dot of those that lie more in a direction than beside it; of none selected, the first.
 *
 * @param {Spot[]} spots
 * @param {number} from
 * @param {[number, number]} way
 */
export function towards(spots, from, way) {
  if (from < 0) return spots.length ? 0 : -1;
  let [best, least] = [-1, Infinity];
  spots.forEach((spot, dot) => {
    const [x, y] = [spot.x - spots[from].x, spot.y - spots[from].y];
    const along = x * way[0] + y * way[1];
    const far = Math.hypot(x, y);
    if (along > 0 && 2 * along * along >= far * far && far < least) [best, least] = [dot, far];
  });
  return best;
}

/**
 * Whether a spot is within a line that is closed from its end to its beginning.
 *
 * @param {Spot[]} line
 * @param {Spot} spot
 */
export function within(line, spot) {
  let inside = false;
  line.forEach((one, at) => {
    const other = line[(at + line.length - 1) % line.length];
    const crosses = one.y > spot.y !== other.y > spot.y;
    if (crosses && spot.x < ((other.x - one.x) * (spot.y - one.y)) / (other.y - one.y) + one.x) inside = !inside;
  });
  return inside;
}

/**
 * @param {Model} model
 * @param {number} dot
 * @returns {Node[]}
 */
function told(model, dot) {
  return [element("b", {}, model.get("names")[dot]), element("div", {}, model.get("texts")[dot])];
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 * @param {Uint32Array} colours
 */
function draw(model, page, local, colours) {
  page.title.textContent = model.get("title");
  page.subtitle.textContent = model.get("subtitle");
  const width = page.map.clientWidth;
  if (width < 60) return;
  const context = sized(page.canvas, width, TALL);
  const ink = inkOf(page.root);
  const spots = spotsOf(model, page, local);
  const codes = typed(model.get("codes"), Uint8Array);
  const chosen = new Set(model.get("selected"));
  spots.forEach((spot, dot) => {
    const marked = chosen.has(dot) || dot === local.over;
    context.beginPath();
    context.arc(spot.x, spot.y, marked ? 4 : 3, 0, 2 * Math.PI);
    context.fillStyle = css(colours[codes[dot]], chosen.size && !marked ? 0.3 : 0.9);
    context.fill();
    if (!marked) return;
    context.strokeStyle = dot === local.over ? ink.accent : ink.ink;
    context.stroke();
  });
  if (local.line) {
    context.beginPath();
    local.line.forEach((spot) => context.lineTo(spot.x, spot.y));
    context.closePath();
    context.strokeStyle = ink.accent;
    context.stroke();
  }
  page.canvas.setAttribute("aria-label", `${plural(spots.length, "dot")}, ${chosen.size} selected`);
  list(model, page);
}

/**
 * The selected dots with their texts.
 *
 * @param {Model} model
 * @param {Page} page
 */
function list(model, page) {
  const chosen = model.get("selected");
  const rows = chosen.slice(0, LISTED).map((dot) => element("div", {}, token(model.get("names")[dot]), ` ${model.get("texts")[dot]}`));
  const more = chosen.length > LISTED ? [element("div", {}, `and ${chosen.length - LISTED} more`)] : [];
  const said = chosen.length ? `${plural(chosen.length, "dot")} selected` : "Click a dot, or draw around several; shift adds.";
  page.chosen.replaceChildren(element("div", { class: "garcon-readout" }, said), ...rows, ...more);
}

export default { render };
