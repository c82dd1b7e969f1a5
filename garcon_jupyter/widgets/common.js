// @ts-check
// What the widgets share: reading buffers, colour, words, and listening with a clean end.

/** @typedef {import("./traits").Picture} Picture */
/** @typedef {import("./traits").Chance} Chance */
/** @typedef {CanvasRenderingContext2D} Context */
/** @typedef {(string | Node)[]} Nodes */
/** @typedef {{ offsetX: number, offsetY: number }} Pointer where the pointer is on an element */

/**
 * The bytes of a trait as a typed array. Traits arrive as DataViews into a larger message, which
 * may begin where no float can be read in place.
 *
 * @template {Float32Array | Int32Array | Uint8Array} Values
 * @param {DataView | null | undefined} view
 * @param {{ BYTES_PER_ELEMENT: number, new (buffer: ArrayBufferLike | number, from?: number, length?: number): Values }} Type
 * @returns {Values}
 */
export function typed(view, Type) {
  if (!view || !view.byteLength) return new Type(0);
  const { buffer, byteOffset, byteLength } = view;
  const length = Math.floor(byteLength / Type.BYTES_PER_ELEMENT);
  if (byteOffset % Type.BYTES_PER_ELEMENT === 0) return new Type(buffer, byteOffset, length);
  return new Type(buffer.slice(byteOffset, byteOffset + length * Type.BYTES_PER_ELEMENT));
}

/**
 * Set traits, and tell the kernel.
 *
 * @template {object} Traits
 * @param {import("./traits").Model<Traits>} model
 * @param {Partial<Traits>} values
 */
export function assign(model, values) {
  for (const name of /** @type {(keyof Traits)[]} */ (Object.keys(values))) {
    model.set(name, /** @type {Traits[keyof Traits]} */ (values[name]));
  }
  model.save_changes();
}

// ---- colour: as colours.py in Python ------------------------------------------------------------

/** How much of its opacity a colour keeps behind text: colours.BEHIND_TEXT. */
export const BEHIND_TEXT = 0.62;

/**
 * The palette as one 32-bit pixel for each colour code.
 *
 * @param {DataView} view
 */
export function pixels(view) {
  return new Uint32Array(typed(view, Uint8Array).slice().buffer);
}

/**
 * Value to colour code, as colours.codes in Python: in float32 and rounded half to even, so that both
 * give a value the same code.
 *
 * @param {number} value
 * @param {number} limit the magnitude of full colour
 * @param {boolean} root whether colour grows with the square root
 */
export function codeOf(value, limit, root = false) {
  let strength = clamp(Math.fround(Math.fround(value) / Math.fround(limit)), -1, 1);
  if (Number.isNaN(strength)) return 0;
  if (root) strength = Math.sign(strength) * Math.fround(Math.sqrt(Math.abs(strength)));
  const exact = Math.fround(strength * 127);
  const near = Math.round(exact); // which rounds a half up
  return 128 + (near - exact === 0.5 && near % 2 ? near - 1 : near);
}

/**
 * A pixel of the palette as CSS, with a share of its opacity and at least so much.
 *
 * @param {number} pixel
 */
export function css(pixel, share = 1, least = 0) {
  const opacity = Math.max(least, ((pixel >>> 24) / 255) * share);
  return `rgba(${pixel & 255},${(pixel >> 8) & 255},${(pixel >> 16) & 255},${opacity.toFixed(3)})`;
}

/**
 * The colour behind the text of a token, as colours.behind_text in Python. What has no value is grey,
 * and fainter than in a grid of cells: it is still to be read.
 *
 * @param {Uint32Array} colours
 * @param {number} value
 * @param {number} limit
 */
export function behindText(colours, value, limit) {
  const code = codeOf(value, limit);
  return code ? css(colours[code], BEHIND_TEXT) : "rgba(128,128,128,0.180)";
}

// ---- numbers in words: as numbers.py in Python --------------------------------------------------

/**
 * A number of so many figures; very large and very small ones by powers of ten.
 *
 * @param {number} value
 */
export function number(value, figures = 5) {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const rounded = Number(value.toPrecision(figures));
  const size = Math.abs(rounded);
  const words = size !== 0 && (size >= 1e6 || size < 1e-4) ? rounded.toExponential() : String(rounded);
  return words.replaceAll("-", "−");
}

/**
 * What a cell has room for: two places behind the point, or none where it is large; nothing for no value.
 *
 * @param {number} value
 */
export function short(value) {
  if (Number.isNaN(value)) return "";
  if (Math.abs(value) >= 1e6) return number(value, 3);
  const words = value.toFixed(Math.abs(value) >= 100 ? 0 : 2);
  return words.replace(/^-(?=0\.00$)/, "").replace("-", "−");
}

/** @param {number} probability */
export function percent(probability) {
  if (!Number.isFinite(probability)) return "–";
  return probability > 0 && probability < 0.001 ? "<0.1%" : `${(probability * 100).toFixed(1)}%`;
}

/**
 * 1536, "neuron" → "1,536 neurons".
 *
 * @param {number} count
 * @param {string} noun
 */
export function plural(count, noun) {
  const many = noun.replace(/([^aeou])y$/, "$1ie") + "s";
  return `${count.toLocaleString("en")} ${count === 1 ? noun : many}`;
}

/**
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
export function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

// ---- elements -----------------------------------------------------------------------------------

/**
 * An element with attributes and children; strings become text, never markup.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {{ [name: string]: string | number | undefined }} attributes
 * @param {Nodes} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = String(value);
    else if (value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children);
  return node;
}

/** @param {string} label */
export function token(label) {
  return element("span", { class: "garcon-token" }, label);
}

/**
 * A select of names with values counted from `first`; hidden where there is nothing to choose.
 *
 * @param {string} label
 * @param {string[]} names
 * @param {number} first
 * @param {number} current
 * @param {(chosen: number) => void} choose
 */
export function chooser(label, names, first, current, choose) {
  const select = element("select", { "aria-label": label });
  names.forEach((name, place) => select.append(element("option", { value: first + place }, name)));
  select.value = String(current);
  select.addEventListener("change", () => choose(Number(select.value)));
  const group = element("label", { class: "garcon-group" }, element("span", { class: "garcon-label" }, label), select);
  group.hidden = names.length < 2;
  if (group.hidden) group.style.display = "none";
  return { group, select };
}

/**
 * @param {string} words
 * @param {string} title
 * @param {(event: MouseEvent) => void} press
 */
export function button(words, title, press = () => {}) {
  const node = element("button", { type: "button", title, "aria-label": title }, words);
  node.addEventListener("click", press);
  return node;
}

/**
 * Words with their probabilities as small bars.
 *
 * @param {string} title
 * @param {Chance[]} rows
 */
export function bars(title, rows) {
  const list = element("div", { class: "garcon-bars" });
  if (title) list.append(element("div", { class: "garcon-label" }, title));
  for (const [word, probability, before] of rows) {
    const bar = element("div", { class: "garcon-bar" });
    const full = element("i");
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

/**
 * A box near the pointer. `show` takes nodes and a place in the widget; `hide` hides it.
 *
 * @param {HTMLElement} root
 */
export function tip(root) {
  const box = element("div", { class: "garcon-tip", hidden: "" });
  root.append(box);
  return {
    /**
     * @param {MouseEvent} event
     * @param {Nodes} children
     */
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

/** @typedef {ReturnType<typeof tip>} Tip */

// ---- pictures that fill -------------------------------------------------------------------------

/** @type {("busy" | "filling" | "unfinished")[]} */
export const FILLING = ["busy", "filling", "unfinished"];

/**
 * What a picture that fills has: a button that leaves off, in sight while there is something to leave off, and the key
 * to cells without a value. `show` is told whether there are any. Its traits are FILLING.
 *
 * @param {import("./traits").Model<Picture>} model
 */
export function filling(model) {
  const stop = button("■ stop", "leave off filling; what is there stays", () => {
    stop.disabled = true;
    tell(model, "leave off");
  });
  const said = element("span");
  const key = element("span", { class: "garcon-missing", hidden: "" }, element("i"), said);
  return {
    stop,
    key,
    /** @param {boolean} missing */
    show(missing) {
      if (!model.get("filling")) stop.disabled = false;
      stop.hidden = !model.get("filling");
      key.hidden = !missing;
      said.textContent = model.get("unfinished") ? "not computed yet" : "no value";
    },
  };
}

/**
 * How far a picture is, to be put behind its subtitle.
 *
 * @param {import("./traits").Model<Picture>} model
 */
export function progress(model) {
  if (model.get("filling") || (model.get("busy") && !model.get("unfinished"))) return " · computing …";
  return model.get("unfinished") ? ` · ${model.get("unfinished")}` : "";
}

/**
 * Lines, to fill with what has no value (yet): it must not look like a zero.
 *
 * @param {Context} context
 * @param {string} line
 * @param {string} shade
 */
export function hatch(context, line, shade) {
  const tile = element("canvas");
  tile.width = tile.height = 7;
  const ink = contextOf(tile);
  ink.fillStyle = shade;
  ink.fillRect(0, 0, 7, 7);
  ink.strokeStyle = line;
  ink.globalAlpha = 0.45;
  for (const shift of [-7, 0, 7]) {
    ink.moveTo(shift - 1, 8);
    ink.lineTo(shift + 8, -1);
  }
  ink.stroke();
  return context.createPattern(tile, "repeat") ?? shade;
}

// ---- drawing ------------------------------------------------------------------------------------

/**
 * What a canvas is drawn with.
 *
 * @param {HTMLCanvasElement} canvas
 * @returns {Context}
 */
export function contextOf(canvas) {
  return /** @type {Context} */ (canvas.getContext("2d"));
}

/**
 * The colours and fonts of the page as it looks now.
 *
 * @param {HTMLElement} root
 */
export function inkOf(root) {
  const style = getComputedStyle(root);
  /** @param {string} name */
  const said = (name) => style.getPropertyValue(`--${name}`);
  return { ink: said("ink"), soft: said("soft"), line: said("line"), shade: said("shade"), accent: said("accent"), code: said("code-font"), text: said("text-font") };
}

/** @typedef {ReturnType<typeof inkOf>} Ink */

/**
 * The colour scale of values from -limit to limit, or by the root from 0, as a canvas.
 *
 * @param {HTMLElement} parent
 * @param {Uint32Array} colours
 */
export function colourBar(parent, colours) {
  const bar = scaleBar(parent, colours);
  /**
   * @param {number} limit
   * @param {boolean} root
   */
  const draw = (limit, root) => bar(root ? 128 : 1, colourTicks(limit, root));
  return draw;
}

/**
 * Places on the colour scale, from 0 to 1, with their numbers, as numbers.ticks in Python.
 *
 * @param {number} limit
 * @param {boolean} root
 * @returns {[number, string][]}
 */
export function colourTicks(limit, root) {
  if (!root) return [[0, number(-limit, 3)], [0.5, "0"], [1, number(limit, 3)]];
  const figures = limit === 1 ? 3 : 2; // ticks by the root are close to each other
  return [0, 0.1, 0.25, 0.5, 1].map((part) => [Math.sqrt(part), number(part * limit, figures)]);
}

/**
 * The colours from code `first` on as a canvas, with ticks [[place, words], …] under it. Returns a
 * function that draws it again.
 *
 * @param {HTMLElement} parent
 * @param {Uint32Array} colours
 */
export function scaleBar(parent, colours) {
  const canvas = element("canvas", { role: "img" });
  parent.append(canvas);
  /**
   * @param {number} first
   * @param {[number, string][]} ticks
   */
  const draw = (first, ticks) => {
    const [width, height, inset] = [220, 26, 24];
    const context = sized(canvas, width, height);
    const strip = new ImageData(256 - first, 1);
    new Uint32Array(strip.data.buffer).set(colours.subarray(first));
    blit(context, strip, inset, 1, width - 2 * inset, 9);
    const ink = inkOf(canvas);
    context.strokeStyle = ink.line;
    context.strokeRect(inset + 0.5, 1.5, width - 2 * inset - 1, 8);
    context.fillStyle = ink.soft;
    context.font = `10px ${ink.text}`;
    context.textAlign = "center";
    for (const [place, words] of ticks) context.fillText(words, inset + place * (width - 2 * inset), 22);
    canvas.setAttribute("aria-label", `colour from ${ticks[0][1]} to ${ticks[ticks.length - 1][1]}`);
  };
  return draw;
}

/**
 * Give a canvas its size on the page at the screen's own resolution, cleared.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {number} width
 * @param {number} height
 */
export function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = contextOf(canvas);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

/**
 * Draw an image with sharp cells, or smooth ones (and, unlike putImageData, with its opacity).
 *
 * @param {Context} context
 * @param {ImageData} image
 * @param {number} x
 * @param {number} y
 * @param {number} width
 * @param {number} height
 */
export function blit(context, image, x, y, width, height, from = 0, columns = image.width, smooth = false) {
  if (!image.width || !image.height) return;
  const source = element("canvas");
  source.width = image.width;
  source.height = image.height;
  contextOf(source).putImageData(image, 0, 0);
  context.imageSmoothingEnabled = smooth;
  context.drawImage(source, from, 0, columns, image.height, x, y, width, height);
}

/**
 * Draw `words` at (x, y) in at most `room` pixels, ending in … where they do not fit.
 *
 * @param {Context} context
 * @param {string} words
 * @param {number} x
 * @param {number} y
 * @param {number} room
 */
export function fitted(context, words, x, y, room) {
  let shown = words;
  if (context.measureText(shown).width > room) {
    let parts = Array.from(words);
    while (parts.length && context.measureText(parts.join("") + "…").width > room) parts = parts.slice(0, -1);
    shown = parts.join("") + "…";
  }
  context.fillText(shown, x, y);
}

/**
 * Send word to the kernel; where there is none any more, nobody needs to know.
 *
 * @param {import("./traits").Model<Picture>} model
 * @param {string} word
 */
function tell(model, word) {
  try {
    model.send({ do: word });
  } catch {
    // a picture of a saved notebook
  }
}

/**
 * Call `draw` once per frame at most, whenever a trait, the size, or the theme changes. The root says
 * by `data-drawn` that it has been drawn, and by `aria-busy` whether more is to come; the kernel is told
 * that somebody looks.
 * Returns {ask, end}: `ask` for a frame; `end` stops all listening.
 *
 * @template {Picture} Traits
 * @param {import("./traits").Model<Traits>} model
 * @param {HTMLElement} root
 * @param {(keyof Traits & string)[]} traits
 * @param {() => void} draw
 */
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
