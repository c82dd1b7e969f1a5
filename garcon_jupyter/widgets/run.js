// @ts-check
import { element, redrawn } from "./common.js";

// News of a run every second, while somebody can see it and it goes on.

/** @typedef {import("./traits").Model<import("./traits").Run>} Model */
/** @typedef {ReturnType<typeof layout>} Page */

/** @type {(keyof import("./traits").Run)[]} */
const TRAITS = ["title", "state", "drawn", "looks", "steered", "trouble", "busy"];

/** @param {import("./traits").Place<import("./traits").Run>} place */
function render({ model, el }) {
  const page = layout();
  const local = { seen: false };
  el.append(page.root);
  const drawing = redrawn(model, page.root, TRAITS, () => draw(model, page));
  const watch = new IntersectionObserver(([entry]) => {
    local.seen = entry.isIntersecting;
  });
  watch.observe(page.root);
  const looking = setInterval(() => {
    if (local.seen && !document.hidden && !model.get("state").over && !model.get("busy")) model.send({ do: "look" });
  }, 1000);
  page.turn.addEventListener("click", () => model.send({ do: model.get("state").state === "running" ? "pause" : "resume" }));
  page.cancel.addEventListener("click", () => model.send({ do: "cancel" }));
  return () => {
    clearInterval(looking);
    watch.disconnect();
    drawing.end();
    page.root.remove();
  };
}

/** All elements, made once. */
function layout() {
  const title = element("div", { class: "garcon-title" });
  const subtitle = element("div", { class: "garcon-subtitle", role: "status" });
  const turn = element("button", { type: "button" }, "pause");
  const cancel = element("button", { type: "button", class: "garcon-danger", title: "end it; what is recorded stays" }, "cancel");
  const bar = element("i");
  const gauge = element("div", { class: "garcon-gauge" }, bar);
  const drawn = element("div");
  const root = element(
    "div",
    { class: "garcon garcon-live garcon-run", "data-lm-suppress-shortcuts": "true" },
    element("div", { class: "garcon-head" }, element("div", { class: "garcon-words" }, title, subtitle), element("div", { class: "garcon-tools" }, turn, cancel)),
    gauge,
    drawn,
  );
  return { root, title, subtitle, turn, cancel, bar, gauge, drawn };
}

/**
 * @param {Model} model
 * @param {Page} page
 */
function draw(model, page) {
  const state = model.get("state");
  page.title.textContent = model.get("title");
  page.subtitle.textContent = model.get("trouble") || (state.words ?? "");
  page.gauge.dataset.state = state.state ?? "";
  page.bar.style.width = `${100 * (state.fraction ?? 0)}%`;
  page.turn.hidden = page.cancel.hidden = !model.get("steered");
  page.turn.textContent = state.state === "running" ? "pause" : "resume";
  page.turn.disabled = state.state === "done";
  page.cancel.disabled = Boolean(state.over);
  page.drawn.innerHTML = model.get("drawn");
}

export default { render };
