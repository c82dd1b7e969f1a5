// @ts-check
import { blit, clamp, element, hatch, sized, typed } from "./common.js";

// All heads of all layers: a row of thumbnails for each layer, in blocks side by side so that all can
// be seen at once. A layer appears when it has come.

/** @typedef {{ layer: number, head: number }} Tile */

const [GUTTER, ABOVE, TALL] = [24, 16, 620];

/**
 * Blocks and tile size as overview.arrangement in Python; here a tile is of whole pixels.
 *
 * @param {number} layers
 * @param {number} heads
 * @param {number} width
 */
export function arrangement(layers, heads, width) {
  let best = [1, 0];
  for (let blocks = 1; blocks <= layers; blocks++) {
    const tile = Math.min((width / blocks - GUTTER) / heads, TALL / Math.ceil(layers / blocks), 64);
    if (tile > best[1]) best = [blocks, tile];
  }
  return { blocks: best[0], tile: Math.max(12, Math.floor(best[1])) };
}

/**
 * The overview's part of the page; `open` is called with the layer and head of a click.
 *
 * @param {import("./traits").Model<import("./traits").Attention>} model
 * @param {(layer: number, head: number) => void} open
 * @param {() => void} ask
 * @param {import("./common").Tip} tip
 */
export function overviewOf(model, open, ask, tip) {
  const canvas = element("canvas");
  const node = element("div", { class: "garcon-overview", tabindex: "0", role: "application", "aria-label": "all heads of all layers: arrow keys move, Enter opens" }, canvas);
  const local = {
    over: /** @type {Tile | null} */ (null),
    at: /** @type {Tile | null} */ (null),
    colours: new Uint32Array(256),
  };
  const [layers, heads] = [model.get("layers"), model.get("heads")];
  const placed = { down: 1, tile: 12 };

  /**
   * @param {import("./common").Pointer} event
   * @returns {Tile | null}
   */
  const tileAt = (event) => {
    const block = Math.floor(event.offsetX / (GUTTER + heads * placed.tile));
    const head = Math.floor((event.offsetX - block * (GUTTER + heads * placed.tile) - GUTTER) / placed.tile);
    const row = Math.floor((event.offsetY - ABOVE) / placed.tile);
    const layer = block * placed.down + row;
    return head >= 0 && head < heads && row >= 0 && row < placed.down && layer < layers ? { layer, head } : null;
  };
  canvas.addEventListener("pointermove", (event) => {
    local.over = tileAt(event);
    if (local.over) tip.show(event, ...enlarged(local.over));
    else tip.hide();
    ask();
  });
  canvas.addEventListener("pointerleave", () => {
    local.over = null;
    tip.hide();
    ask();
  });
  canvas.addEventListener("click", (event) => {
    const tile = tileAt(event);
    if (tile) open(tile.layer, tile.head);
  });
  node.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { layer, head } = local.at ?? { layer: 0, head: -1 };
    /** @type {{ [key: string]: [down: number, across: number] }} */
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key === "Enter" && local.at) open(layer, head);
    else if (steps[event.key]) {
      const [down, across] = steps[event.key];
      local.at = { layer: clamp(layer + down, 0, layers - 1), head: clamp(head + across, 0, heads - 1) };
      ask();
    } else return;
    event.preventDefault();
    event.stopPropagation(); // else the notebook takes the arrows for its own
  });

  /**
   * Words and a larger picture of a tile, for the tip.
   *
   * @param {Tile} tile
   * @returns {import("./common").Nodes}
   */
  const enlarged = ({ layer, head }) => {
    const large = element("canvas");
    const image = images(layer)?.[head];
    const context = sized(large, 160, 160);
    if (image) blit(context, image, 0, 0, 160, 160);
    return [`layer ${layer} · head ${head}${image ? "" : ` · ${model.get("unfinished") || "on its way"}`}`, large];
  };

  /** @type {Map<number, { codes: DataView, tiles: ImageData[] }>} */
  const made = new Map();
  /**
   * The thumbnails of a layer as images, made once for each time that they come.
   *
   * @param {number} layer
   */
  const images = (layer) => {
    const codes = model.get(`small_${layer}`);
    if (!codes?.byteLength) return null;
    const known = made.get(layer);
    if (known?.codes === codes) return known.tiles;
    const come = tiles(codes);
    made.set(layer, { codes, tiles: come });
    return come;
  };
  /** @param {DataView} codes */
  const tiles = (codes) => {
    const [rows, columns] = model.get("small_shape");
    const all = typed(codes, Uint8Array);
    return Array.from({ length: heads }, (_, head) => {
      const image = new ImageData(columns, rows);
      const ink = new Uint32Array(image.data.buffer);
      all.subarray(head * rows * columns, (head + 1) * rows * columns).forEach((code, place) => (ink[place] = local.colours[code]));
      return image;
    });
  };

  return {
    node,
    /** How many layers have come. */
    loaded: () => Array.from({ length: layers }, (_, layer) => model.get(`small_${layer}`)?.byteLength > 0).filter(Boolean).length,
    /**
     * @param {import("./common").Ink} ink
     * @param {Uint32Array} colours
     */
    draw(ink, colours) {
      local.colours = colours;
      const room = node.clientWidth;
      if (!room) return;
      const { blocks, tile } = arrangement(layers, heads, room);
      Object.assign(placed, { tile, down: Math.ceil(layers / blocks) });
      const context = sized(canvas, blocks * (GUTTER + heads * tile) + 1, 2 * ABOVE + placed.down * tile + 1);
      context.font = `10px ${ink.text}`;
      const empty = hatch(context, ink.soft, ink.shade);
      /**
       * @param {Tile} tile
       * @returns {[x: number, y: number]}
       */
      const corner = ({ layer, head }) => [
        Math.floor(layer / placed.down) * (GUTTER + heads * tile) + GUTTER + head * tile,
        ABOVE + (layer % placed.down) * tile,
      ];
      for (let layer = 0; layer < layers; layer++) {
        const [x, y] = corner({ layer, head: 0 });
        const come = images(layer);
        context.fillStyle = layer === (local.over ?? local.at)?.layer ? ink.ink : ink.soft;
        context.textAlign = "right";
        context.textBaseline = "middle";
        context.fillText(String(layer), x - 6, y + tile / 2);
        for (let head = 0; head < heads; head++) {
          if (!come) {
            context.fillStyle = empty;
            context.fillRect(x + head * tile, y, tile, tile);
          } else blit(context, come[head], x + head * tile, y, tile, tile, 0, come[head].width, tile < come[head].width);
          context.strokeStyle = ink.line;
          context.strokeRect(x + head * tile + 0.5, y + 0.5, tile, tile);
          if (tile < 18 && head % 4) continue;
          context.textAlign = "center";
          context.fillStyle = ink.soft;
          const last = layer % placed.down === placed.down - 1 || layer === layers - 1;
          if (layer % placed.down === 0) context.fillText(String(head), x + (head + 0.5) * tile, 8);
          if (last) context.fillText(String(head), x + (head + 0.5) * tile, y + tile + 8);
        }
      }
      context.lineWidth = 2;
      /** @type {[Tile | null, string][]} */
      const marked = [[local.at, ink.ink], [local.over, ink.accent]];
      for (const [tileOf, colour] of marked) {
        if (!tileOf) continue;
        context.strokeStyle = colour;
        context.strokeRect(...corner(tileOf), tile + 1, tile + 1);
      }
    },
  };
}
