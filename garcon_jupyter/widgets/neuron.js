import { clamp, element, number, redrawn, sized, tip, token } from "./common.js";

// One neuron from a record. Everything but the histogram is text, so it can be searched and read out.

const TRAITS = ["title", "record", "tried", "text", "busy", "trouble"];
const BEHIND_TEXT = 0.62; // colours.BEHIND_TEXT

function render({ model, el }) {
  const page = layout(model);
  const local = { later: 0 };
  el.append(page.root);
  const drawing = redrawn(model, page.root, TRAITS, () => draw(model, page));
  page.text.addEventListener("input", () => {
    model.set("text", page.text.value);
    clearTimeout(local.later);
    local.later = setTimeout(() => model.save_changes(), 250);
  });
  page.root.addEventListener("pointermove", (event) => {
    const piece = event.target.closest?.(".garcon-piece");
    if (piece) page.tip.show(event, token(piece.textContent), " ", element("b", {}, number(Number(piece.dataset.value))));
    else page.tip.hide();
  });
  page.root.addEventListener("pointerleave", () => page.tip.hide());
  return () => {
    clearTimeout(local.later);
    drawing.end();
    page.root.remove();
  };
}

function layout(model) {
  const page = {};
  page.title = element("div", { class: "garcon-title" });
  page.subtitle = element("div", { class: "garcon-subtitle" });
  page.histogram = element("canvas", { role: "img" });
  page.up = element("div", { class: "garcon-effects" });
  page.down = element("div", { class: "garcon-effects" });
  page.others = element("div", { class: "garcon-effects" });
  page.text = element("input", { type: "text", placeholder: "a text of your own", "aria-label": "a text of your own", spellcheck: "false" });
  page.tried = element("div", {});
  page.examples = element("div", {});
  const column = (name, node) => element("div", {}, element("h4", {}, name), node);
  page.columns = { up: column("raises", page.up), down: column("lowers", page.down), others: column("fires with", page.others), histogram: column("when it fires", page.histogram) };
  page.root = element(
    "div",
    { class: "garcon garcon-live garcon-neuron", "data-lm-suppress-shortcuts": "true" },
    element("div", { class: "garcon-head" }, element("div", { class: "garcon-words" }, page.title, page.subtitle)),
    element("div", { class: "garcon-columns" }, page.columns.histogram, page.columns.up, page.columns.down, page.columns.others),
    ...(model.get("can_try") ? [page.text, page.tried] : []),
    page.examples,
  );
  page.tip = tip(page.root);
  return page;
}

function draw(model, page) {
  const record = model.get("record");
  const largest = record.largest || 1;
  page.title.textContent = model.get("title");
  page.subtitle.textContent = [...(record.fires ? [record.fires] : []), `largest value ${number(Number(largest.toPrecision(4)))}`].join(" · ");
  drawHistogram(page, record.histogram);
  for (const [name, rows, minus] of [["up", record.up, false], ["down", record.down, true], ["others", record.correlated, false]]) {
    page.columns[name].style.display = rows?.length ? "" : "none";
    page[name].replaceChildren(...effects(rows ?? [], minus));
  }
  if (page.text !== document.activeElement && page.text.value !== model.get("text")) page.text.value = model.get("text");
  page.tried.replaceChildren();
  if (model.get("trouble")) page.tried.append(element("div", { class: "garcon-trouble" }, model.get("trouble")));
  else if (model.get("tried").tokens) page.tried.append(line(model.get("tried"), largest));
  page.examples.replaceChildren();
  const section = (title, note, examples) => {
    if (!examples.length) return;
    page.examples.append(element("h4", {}, title, element("span", {}, note)), ...examples.map((example) => line(example, largest)));
  };
  section("strongest examples", "", record.top ?? []);
  for (const part of record.intervals ?? []) {
    section(`${number(Number(part.low.toPrecision(3)))} to ${number(Number(part.high.toPrecision(3)))}`, ` · ${part.said}`, part.examples ?? []);
  }
  for (const row of page.root.querySelectorAll(".garcon-example")) {
    const strongest = row.querySelector("[data-strongest]");
    if (strongest) row.scrollLeft = strongest.offsetLeft - row.offsetLeft - row.clientWidth / 2;
  }
}

function line({ tokens, values }, largest) {
  const row = element("div", { class: "garcon-example", dir: "ltr", tabindex: "0" });
  const most = Math.max(...values);
  tokens.forEach((piece, place) => {
    const value = values[place];
    const node = element("span", { class: "garcon-piece", "data-value": value }, piece.replaceAll("\n", ""));
    const strength = Math.pow(clamp(Math.abs(value) / largest, 0, 1), 0.9) * BEHIND_TEXT;
    node.style.backgroundColor = `rgba(${value < 0 ? "230,104,18" : "32,112,220"},${strength.toFixed(3)})`;
    if (value === most) node.dataset.strongest = "";
    row.append(node);
  });
  return row;
}

function effects(rows, minus) {
  const most = Math.max(...rows.map(([, value]) => Math.abs(value)), 1e-9);
  return rows.map(([word, value]) => {
    const full = element("i", {});
    full.style.width = `${(Math.abs(value) / most) * 100}%`;
    return element("div", { class: "garcon-effect" }, token(word), element("div", { class: `garcon-bar${minus || value < 0 ? " garcon-minus" : ""}` }, full), element("b", {}, number(Number(value.toPrecision(3)))));
  });
}

/** Counts on a logarithmic axis. */
function drawHistogram(page, histogram) {
  page.columns.histogram.style.display = histogram?.counts?.length ? "" : "none";
  if (!histogram?.counts?.length) return;
  const width = Math.max(page.columns.histogram.clientWidth, 120);
  const [height, foot] = [110, 16];
  const context = sized(page.histogram, width, height + foot);
  const most = Math.log1p(Math.max(...histogram.counts));
  const pitch = width / histogram.counts.length;
  const style = getComputedStyle(page.root);
  context.fillStyle = "rgb(32,112,220)";
  histogram.counts.forEach((count, place) => {
    const tall = most ? (Math.log1p(count) / most) * height : 0;
    context.fillRect(place * pitch, height - tall, Math.max(pitch - 1, 1), tall);
  });
  context.fillStyle = style.getPropertyValue("--line");
  context.fillRect(0, height, width, 1);
  context.fillStyle = style.getPropertyValue("--soft");
  context.font = `10px ${style.getPropertyValue("--text-font")}`;
  context.fillText(number(Number(histogram.edges[0].toPrecision(3))), 0, height + 12);
  context.textAlign = "right";
  context.fillText(number(Number(histogram.edges.at(-1).toPrecision(3))), width, height + 12);
  page.histogram.setAttribute("aria-label", `histogram of positive values, ${histogram.counts.reduce((a, b) => a + b, 0)} tokens`);
}

export default { render };
