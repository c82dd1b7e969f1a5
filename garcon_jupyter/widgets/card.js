// @ts-check
import { element, redrawn } from "./common.js";

// News of a server every other second, while somebody can see the card.

/** @typedef {import("./traits").Model<import("./traits").Card>} Model */
/** @typedef {import("./traits").Rank} Rank */
/** @typedef {import("./traits").Work} Work */
/** @typedef {ReturnType<typeof layout>} Page */
/** @typedef {{ heard: number, most: number, sure: number, seen: boolean }} Local */

/** @type {(keyof import("./traits").Card)[]} */
const TRAITS = ["title", "facts", "state", "stopped", "looks", "trouble", "busy"];

/** @param {import("./traits").Place<import("./traits").Card>} place */
function render({ model, el }) {
  const page = layout(model);
  /** @type {Local} */
  const local = { heard: performance.now(), most: 0, sure: 0, seen: false };
  el.append(page.root);
  const drawing = redrawn(model, page.root, TRAITS, () => draw(model, page, local));
  const heard = () => {
    local.heard = performance.now();
  };
  model.on("change:looks", heard);
  const watch = new IntersectionObserver(([entry]) => {
    local.seen = entry.isIntersecting;
  });
  watch.observe(page.root);
  const looking = setInterval(() => {
    if (local.seen && !document.hidden && !model.get("stopped")) model.send({ do: "look" });
  }, 2000);
  const ticking = setInterval(() => countDown(model, page, local), 500);
  page.keep.addEventListener("click", () => model.send({ do: "keep" }));
  page.stop.addEventListener("click", (event) => {
    // A click too many ends the work of others, so it takes two, and a double click counts as one.
    if (event.detail > 1) return;
    if (performance.now() - local.sure < 3000) model.send({ do: "stop" });
    local.sure = performance.now();
    page.stop.textContent = "really stop?";
    setTimeout(() => (page.stop.textContent = "stop"), 3000);
  });
  return () => {
    clearInterval(looking);
    clearInterval(ticking);
    watch.disconnect();
    model.off("change:looks", heard);
    drawing.end();
    page.root.remove();
  };
}

/**
 * All elements, made once, but for what a server has several of.
 *
 * @param {Model} model
 */
function layout(model) {
  const title = element("div", { class: "garcon-title" });
  const subtitle = element("div", { class: "garcon-subtitle" });
  const state = element("span", { class: "garcon-state", role: "status" });
  const keep = element("button", { type: "button", title: "wind up the idle clock" }, "keep alive");
  const stop = element("button", { type: "button", class: "garcon-danger", title: "end the server" }, "stop");
  const idle = element("div", { class: "garcon-idle" });
  const gauge = element("i");
  const queue = element("ul", { class: "garcon-list" });
  const users = element("ul", { class: "garcon-list" });
  const ranks = element("div");
  const tools = element("div", { class: "garcon-tools" }, state);
  if (model.get("can_keep")) tools.append(keep);
  if (model.get("can_stop")) tools.append(stop);
  const root = element(
    "div",
    { class: "garcon garcon-live garcon-card", "data-lm-suppress-shortcuts": "true" },
    element("div", { class: "garcon-head" }, element("div", { class: "garcon-words" }, title, subtitle), tools),
    element("div", { class: "garcon-columns" },
      element("div", {}, element("h4", {}, "ends when idle for"), idle, element("div", { class: "garcon-gauge" }, gauge), element("h4", {}, "queue"), queue),
      element("div", {}, element("h4", {}, "users"), users),
      element("div", {}, element("h4", {}, "ranks"), ranks)),
  );
  return { root, title, subtitle, state, keep, stop, idle, gauge, queue, users, ranks };
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 */
function draw(model, page, local) {
  const state = model.get("state");
  const stopped = model.get("stopped");
  page.title.textContent = model.get("title");
  page.subtitle.textContent = stopped || model.get("trouble") || model.get("facts").join(" · ");
  const word = stopped ? "gone" : state.running ? "busy" : "idle";
  page.state.dataset.state = word;
  page.state.textContent = word;
  page.keep.disabled = page.stop.disabled = Boolean(stopped);
  /** @param {import("./common").Nodes} parts */
  const line = (...parts) => element("li", {}, ...parts);
  /**
   * @param {Work} item
   * @param {string} what
   */
  const request = (item, what) => line(element("b", {}, item.kind), " of ", session(item.session), ` ${what} ${time(item.seconds)}`);
  const queue = [...(state.running ? [request(state.running, "for")] : []), ...(state.waiting ?? []).map((item) => request(item, "waiting"))];
  page.queue.replaceChildren(...(queue.length && !stopped ? queue : [line("nothing runs, nothing waits")]));
  page.users.replaceChildren(...(state.clients ?? []).map((client) => line(element("b", {}, client.user ?? "?"), " · ", session(client.session))));
  const most = Math.max(1, ...(state.ranks ?? []).map((rank) => rank.memory ?? 0));
  page.ranks.replaceChildren(...(state.ranks ?? []).map((rank) => rankBox(rank, most)));
  countDown(model, page, local);
}

/**
 * A session is named after its notebook: the file's name tells enough.
 *
 * @param {string} name
 */
const session = (name) => element("span", { title: name }, String(name).split("/").at(-1) ?? "");

/**
 * @param {Rank} rank
 * @param {number} most bytes that any rank uses
 */
function rankBox(rank, most) {
  const layers = rank.layers?.length ? (rank.layers.length > 1 ? `layers ${rank.layers[0]}–${rank.layers.at(-1)}` : `layer ${rank.layers[0]}`) : "no layers";
  const bar = element("i");
  bar.style.width = `${((rank.memory ?? 0) / most) * 100}%`;
  const box = element("div", { class: "garcon-rank" }, element("b", {}, `rank ${rank.rank}`), ` · ${rank.device} · ${layers}`,
    element("div", { class: "garcon-gauge" }, bar),
    `${size(rank.parameter_bytes)} of parameters${rank.memory ? ` · ${size(rank.memory)} in use` : ""}`);
  return box;
}

/**
 * @param {Model} model
 * @param {Page} page
 * @param {Local} local
 */
function countDown(model, page, local) {
  const left = model.get("state").idle_left;
  if (model.get("stopped")) page.idle.textContent = "–";
  else if (left === null || left === undefined) page.idle.textContent = "never";
  else {
    const now = Math.max(0, left - (model.get("state").running ? 0 : (performance.now() - local.heard) / 1000));
    local.most = Math.max(local.most, now);
    page.idle.textContent = time(now);
    page.gauge.style.width = `${(now / Math.max(local.most, 1)) * 100}%`;
  }
}

/** @param {number} seconds */
function time(seconds) {
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h} h ${String(m).padStart(2, "0")} min` : m ? `${m} min ${String(s).padStart(2, "0")} s` : `${s} s`;
}

/**
 * Bytes, as sizes.sized in Python.
 *
 * @param {number} count
 */
function size(count) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  for (; count >= 1024 && power < units.length - 1; power++) count /= 1024;
  return `${count.toFixed(power ? 1 : 0)} ${units[power]}`;
}

export default { render };
