"""All heads of all layers at a glance: a row of thumbnails for each layer.

Thirty layers × nine heads × 128 tokens are 17 MB of weights, and of text (as JSON) sixty. What fits on a screen
is a thumbnail of at most 32 × 32 cells a head, each cell the strongest of those it stands for: 9 kB a layer, which
come a few layers at a time. A click on a thumbnail opens that head of that layer, whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from garcon_jupyter.widgets import arrays, svg

SIDE = 32
"""Most cells along one side of a thumbnail."""

BYTES = 2**20
"""Most bytes of all thumbnails together."""

TOGETHER = 5
"""Layers that are asked for at once: so often the picture grows, and others have their turn."""

STILL_SIDE = 16
"""Most cells along one side of a thumbnail in a saved notebook."""

_MARGIN, _TOP, _GUTTER, _TALL = 16.0, 62.0, 24.0, 620.0


def side(thumbnails: int) -> int:
    """Cells along one side of each of so many thumbnails."""
    return max(4, min(SIDE, int((BYTES / max(thumbnails, 1)) ** 0.5)))


def arrangement(layers: int, heads: int, width: float, height: float) -> tuple[int, float]:
    """Into how many blocks of layers, side by side, the rows are laid, and the width of a tile.

    As the browser lays them out (overview.js): the largest tiles for which all fit, 12 pixels at least.
    """
    best = (1, 0.0)
    for blocks in range(1, layers + 1):
        down = math.ceil(layers / blocks)
        tile = min((width / blocks - _GUTTER) / max(heads, 1), height / down, 64.0)
        if tile > best[1]:
            best = blocks, tile
    return best[0], max(best[1], 12.0)


def still(
    smalls: Sequence[bytes], heads: int, shape: tuple[int, int], title: str, unfinished: str = ""
) -> str:
    r"""SVG of all layers.

    Args:
        smalls: for each layer the colour codes of its heads, uint8 [head, \*shape]; empty where they are missing.
        heads: how many a layer has.
        shape: cells of a thumbnail.
        title: heading.
        unfinished: why layers are missing; "" where none is.
    """
    layers, have = len(smalls), [layer for layer, codes in enumerate(smalls) if codes]
    missing = f" · {len(have)} loaded" if len(have) < layers else ""
    missing += f" · {unfinished}" if unfinished else ""
    marks = [
        svg.text(_MARGIN, 26, svg.shorten(title, 100), 15, bold=True),
        svg.text(_MARGIN, 44, f"{layers} layers × {heads} heads{missing}", 11.5, colour=svg.SOFT),
    ]
    blocks, tile = arrangement(layers, heads, svg.WIDTH - 2 * _MARGIN, _TALL)
    down = math.ceil(layers / blocks)
    for layer in range(layers):
        x = _MARGIN + layer // down * (_GUTTER + heads * tile) + _GUTTER
        y = _TOP + layer % down * tile
        marks.append(
            svg.text(x - 6, y + tile / 2 + 3, str(layer), 9.5, anchor="end", colour=svg.SOFT)
        )
        ends = [y - 4] if layer % down == 0 else []
        ends += [y + tile + 10] if layer % down == down - 1 or layer == layers - 1 else []
        marks += [
            svg.text(x + (head + 0.5) * tile, end, str(head), 9, "middle", svg.SOFT)
            for end in ends
            for head in range(heads)
            if tile >= 18 or head % 4 == 0
        ]
    for first in range(0, layers, down):
        marks += _block(smalls[first : first + down], heads, shape, first // down, tile)
    note = "rows: layers · columns: heads · in a tile query tokens down, key tokens across"
    bottom = _TOP + down * tile + 28
    marks.append(svg.text(_MARGIN, bottom, note, 11, colour=svg.SOFT))
    if len(have) < layers:
        marks.append(svg.missing_key(svg.WIDTH - _MARGIN - 130, bottom - 9, "not computed yet"))
    return svg.document(marks, bottom + 16)


def _block(
    smalls: Sequence[bytes], heads: int, shape: tuple[int, int], place: int, tile: float
) -> list[str]:
    """A block of layers as one image, and lines between its tiles."""
    size = max(1, math.ceil(max(*shape, 1) / STILL_SIDE))
    empty = np.full((heads, *shape), 128, np.uint8)
    rows = []
    for codes in smalls:
        tiles = np.frombuffer(codes, np.uint8).reshape(heads, *shape) if codes else empty
        steps = tiles.astype(np.float32) - 128
        small = arrays.pool(arrays.pool(steps, size, axis=1), size, axis=2)
        rows.append(np.concatenate(list(small), axis=1))
    cells = (np.concatenate(rows, axis=0) + 128).astype(np.uint8) if rows else np.zeros((0, 0))
    if not cells.size:
        return []
    x = _MARGIN + place * (_GUTTER + heads * tile) + _GUTTER
    width, height = heads * tile, len(smalls) * tile
    lines = [f"M{x + head * tile:.1f} {_TOP:.1f}v{height:.1f}" for head in range(heads + 1)]
    lines += [f"M{x:.1f} {_TOP + row * tile:.1f}h{width:.1f}" for row in range(len(smalls) + 1)]
    return [
        svg.raster(cells.astype(np.uint8), x, _TOP, width, height),
        *(
            svg.hatched(x, _TOP + row * tile, width, down * tile)
            for row, _, down, _ in svg.blocks(np.array([[not codes] for codes in smalls]))
        ),
        f'<path d="{"".join(lines)}" stroke="{svg.LINE}"/>',
    ]
