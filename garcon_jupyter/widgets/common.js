// What the widgets share: reading buffers, colour, words, and listening with a clean end.

/** The bytes of a trait as a typed array. Traits arrive as DataViews into a larger message, which
 * may begin where no float can be read in place. */
export function typed(view, Type) {
  if (!view || !view.byteLength) return new Type(0);
  const { buffer, byteOffset, byteLength } = view;
  const length = Math.floor(byteLength / Type.BYTES_PER_ELEMENT);
  if (byteOffset % Type.BYTES_PER_ELEMENT === 0) return new Type(buffer, byteOffset, length);
  return new Type(buffer.slice(byteOffset, byteOffset + length * Type.BYTES_PER_ELEMENT));
}

/** The palette as one 32-bit pixel for each colour code. */
export function pixels(view) {
  return new Uint32Array(typed(view, Uint8Array).slice().buffer);
}

/** Value to colour code, as colours.codes in Python. */
export function codeOf(value, limit, root = false) {
  if (Number.isNaN(value)) return 0;
  let strength = Math.min(1, Math.max(-1, value / limit));
  if (root) strength = Math.sign(strength) * Math.sqrt(Math.abs(strength));
  return 128 + Math.round(strength * 127);
}

export function number(value) {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const words = size !== 0 && (size >= 1e6 || size < 1e-4) ? value.toExponential(3) : String(Number(value.toPrecision(5)));
  return words.replace("-", "−");
}

export function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

/** 1536, "neuron" → "1,536 neurons". */
export function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** An element with attributes and children; strings become text, never markup. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export function token(label) {
  return element("span", { class: "garcon-token" }, label);
}

/** A select of names with values counted from `first`; hidden where there is nothing to choose. */
export function chooser(label, names, first, current, choose) {
  const select = element("select", { "aria-label": label });
  names.forEach((name, place) => select.append(element("option", { value: first + place }, name)));
  select.value = current;
  select.addEventListener("change", () => choose(Number(select.value)));
  const group = element("label", { class: "garcon-group" }, element("span", { class: "garcon-label" }, label), select);
  group.hidden = names.length < 2;
  if (group.hidden) group.style.display = "none";
  return { group, select };
}

export function button(words, title, press) {
  const node = element("button", { type: "button", title, "aria-label": title }, words);
  node.addEventListener("click", press);
  return node;
}

/** What a picture that fills has: a button that leaves off, in sight while there is something to leave off, and the key
 * to cells without a value. `show` is told whether there are any. Its traits are FILLING. */
export function filling(model) {
  const stop = button("■ stop", "leave off filling; what is there stays", () => {
    stop.disabled = true;
    tell(model, "leave off");
  });
  const said = element("span", {});
  const key = element("span", { class: "garcon-missing", hidden: "" }, element("i", {}), said);
  return {
    stop,
    key,
    show(missing) {
      if (!model.get("filling")) stop.disabled = false;
      stop.hidden = !model.get("filling");
      key.hidden = !missing;
      said.textContent = model.get("unfinished") ? "not computed yet" : "no value";
    },
  };
}

export const FILLING = ["busy", "filling", "unfinished"];

/** How far a picture is, to be put behind its subtitle. */
export function progress(model) {
  if (model.get("filling") || (model.get("busy") && !model.get("unfinished"))) return " · computing …";
  return model.get("unfinished") ? ` · ${model.get("unfinished")}` : "";
}

/** Lines, to fill with what has no value (yet): it must not look like a zero. */
export function hatch(context, line, shade) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 7;
  const ink = tile.getContext("2d");
  ink.fillStyle = shade;
  ink.fillRect(0, 0, 7, 7);
  ink.strokeStyle = line;
  ink.globalAlpha = 0.45;
  for (const shift of [-7, 0, 7]) {
    ink.moveTo(shift - 1, 8);
    ink.lineTo(shift + 8, -1);
  }
  ink.stroke();
  return context.createPattern(tile, "repeat");
}

/** Words with their probabilities as small bars: [[word, probability, before?], …]. */
export function bars(title, rows) {
  const list = element("div", { class: "garcon-bars" });
  if (title) list.append(element("div", { class: "garcon-label" }, title));
  for (const [word, probability, before] of rows) {
    const bar = element("div", { class: "garcon-bar" });
    const full = element("i", {});
    full.style.width = `${clamp(probability, 0, 1) * 100}%`;
    bar.append(full);
    if (before !== undefined) {
      const mark = element("u", { title: `before: ${percent(before)}` });
      mark.style.left = `${clamp(before, 0, 1) * 100}%`;
      bar.append(mark);
    }
    list.append(element("div", { class: "garcon-row" }, token(word), bar, element("b", {}, percent(probability))));
  }
  return list;
}

export function percent(probability) {
  if (!Number.isFinite(probability)) return "–";
  return probability > 0 && probability < 0.001 ? "<0.1%" : `${(probability * 100).toFixed(1)}%`;
}

/** The colour scale of values from -limit to limit, or by the root from 0, as a canvas. */
export function colourBar(parent, colours) {
  const bar = scaleBar(parent, colours);
  return (limit, root) => {
    const ticks = root
      ? [0, 0.1, 0.25, 0.5, 1].map((part) => [Math.sqrt(part), part * limit])
      : [[0, -limit], [0.5, 0], [1, limit]];
    const digits = root && limit !== 1 ? 2 : 3; // ticks by the root are close to each other
    bar(root ? 128 : 1, ticks.map(([place, value]) => [place, number(Number(value.toPrecision(digits)))]));
  };
}

/** The colours from code `first` on as a canvas, with ticks [[place, words], …] under it. Returns a
 * function that draws it again. */
export function scaleBar(parent, colours) {
  const canvas = element("canvas", { role: "img" });
  parent.append(canvas);
  return (first, ticks) => {
    const [width, height, inset] = [220, 26, 24];
    const context = sized(canvas, width, height);
    const strip = new ImageData(256 - first, 1);
    new Uint32Array(strip.data.buffer).set(colours.subarray(first));
    blit(context, strip, inset, 1, width - 2 * inset, 9);
    const style = getComputedStyle(canvas);
    context.strokeStyle = style.getPropertyValue("--line");
    context.strokeRect(inset + 0.5, 1.5, width - 2 * inset - 1, 8);
    context.fillStyle = style.getPropertyValue("--soft");
    context.font = `10px ${style.getPropertyValue("--text-font")}`;
    context.textAlign = "center";
    for (const [place, words] of ticks) context.fillText(words, inset + place * (width - 2 * inset), 22);
    canvas.setAttribute("aria-label", `colour from ${ticks[0][1]} to ${ticks.at(-1)[1]}`);
  };
}

/** Give a canvas its size on the page at the screen's own resolution, cleared. */
export function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

/** Draw an image with sharp cells, or smooth ones (and, unlike putImageData, with its opacity). */
export function blit(context, image, x, y, width, height, from = 0, columns = image.width, smooth = false) {
  if (!image.width || !image.height) return;
  const source = document.createElement("canvas");
  source.width = image.width;
  source.height = image.height;
  source.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = smooth;
  context.drawImage(source, from, 0, columns, image.height, x, y, width, height);
}

/** Draw `words` at (x, y) in at most `room` pixels, ending in … where they do not fit. */
export function fitted(context, words, x, y, room) {
  let shown = words;
  if (context.measureText(shown).width > room) {
    let parts = Array.from(words);
    while (parts.length && context.measureText(parts.join("") + "…").width > room) parts = parts.slice(0, -1);
    shown = parts.join("") + "…";
  }
  context.fillText(shown, x, y);
}

/** A box near the pointer. `show` takes nodes and a place in the widget; `hide` hides it. */
export function tip(root) {
  const box = element("div", { class: "garcon-tip", hidden: "" });
  root.append(box);
  return {
    show(event, ...children) {
      box.replaceChildren(...children);
      box.hidden = false;
      const frame = root.getBoundingClientRect();
      const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
      const right = x + 16 + box.offsetWidth < frame.width;
      box.style.left = `${right ? x + 14 : Math.max(2, x - box.offsetWidth - 12)}px`;
      box.style.top = `${y + 16}px`;
    },
    hide() {
      box.hidden = true;
    },
  };
}

/** Send word to the kernel; where there is none any more, nobody needs to know. */
function tell(model, word) {
  try {
    model.send({ do: word });
  } catch {
    // a picture of a saved notebook
  }
}

/** Call `draw` once per frame at most, whenever a trait, the size, or the theme changes. The root says
 * by `data-drawn` that it has been drawn, and by `aria-busy` whether more is to come; the kernel is told
 * that somebody looks.
 * Returns {ask, end}: `ask` for a frame; `end` stops all listening. */
export function redrawn(model, root, traits, draw) {
  let asked = 0;
  const ask = () => {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      draw();
      const first = !("drawn" in root.dataset);
      root.dataset.drawn = "";
      root.setAttribute("aria-busy", String(Boolean(model.get("busy"))));
      if (first) tell(model, "seen");
    });
  };
  for (const trait of traits) model.on(`change:${trait}`, ask);
  const size = new ResizeObserver(ask);
  size.observe(root);
  const theme = new MutationObserver(ask);
  theme.observe(document.body, { attributes: true, attributeFilter: ["class", "data-jp-theme-light", "data-jp-theme-name"] });
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", ask);
  ask();
  return {
    ask,
    end() {
      cancelAnimationFrame(asked);
      for (const trait of traits) model.off(`change:${trait}`, ask);
      size.disconnect();
      theme.disconnect();
      dark.removeEventListener("change", ask);
    },
  };
}
