"""What attention looks like before it is drawn: masked cells, the first token, thumbnails, and the scale of colour."""

from __future__ import annotations

import numpy as np

from garcon_jupyter.widgets import arrays

THUMBNAIL_BYTES = 262_144
"""Most bytes for the thumbnails of all heads together."""

THUMBNAIL_SIDE = 128
"""Most cells along one side of a thumbnail."""

MASKED_BELOW = -1e4
"""A score at or below this is masked: models write -inf, the dtype's minimum, -1e9 or -1e4."""


def without_masked(scores: arrays.Floats) -> arrays.Floats:
    """`scores` with every masked cell at -inf, however the model wrote it."""
    return np.where(scores <= MASKED_BELOW, np.float32(-np.inf), scores)


def without_first(heads: arrays.Floats) -> arrays.Floats:
    """`heads` [… query, key] with the first token masked: as a key, and as the query that sees nothing else."""
    queries, keys = heads.shape[-2:]
    if keys < 2:
        return heads
    rest = heads.copy()
    rest[..., 0] = -np.inf
    if queries == keys:
        rest[..., 0, :] = -np.inf
    return rest


def scale(values: arrays.Floats, largest: bool = False) -> tuple[float, bool]:
    """Magnitude of full colour, and whether colour grows with the square root (weights).

    Args:
        values: weights or scores, masked ones at -inf.
        largest: whether the largest weight has full colour, and not a weight of 1.
    """
    seen = values[np.isfinite(values)]
    weights = bool(seen.size) and seen.min() >= 0.0 and seen.max() <= 1.001
    if not weights:
        return arrays.colour_limit(values), False
    return (float(seen.max()) or 1.0 if largest else 1.0), True


def thumbnails(heads: arrays.Floats, side: int = THUMBNAIL_SIDE) -> arrays.Floats:
    """[head, query, key] pooled to at most `side` × `side` and THUMBNAIL_BYTES in all.

    Masked cells are zero, so that they neither win over a score nor take colour.
    """
    count, queries, keys = heads.shape
    side = max(1, min(side, int((THUMBNAIL_BYTES / max(count, 1)) ** 0.5)))
    size = max(1, -(-max(queries, keys) // side))
    seen = np.where(np.isneginf(heads), np.float32(0.0), heads)
    return arrays.pool(arrays.pool(seen, size, axis=1), size, axis=2)
