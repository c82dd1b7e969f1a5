"""Which units fire together: within a point from all pairs, between points from sketches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from garcon_jupyter.recorders import SketchState
from garcon_jupyter.recorders.covariance import strongest

CORRELATED = 10
"""Units that are kept of each, of the same point and of others."""

SUMS = 1024
"""In the sketch of a unit, by which units of different points are correlated."""

_CERTAIN = 5
"""Standard errors by which a correlation must differ from 0 to be kept: chance alone gives one unit of two
million as much."""

_AT_ONCE = 256
"""Units whose correlations with all others are computed at a time."""


def across(sketches: dict[str, SketchState]) -> Iterator[tuple[str, str, np.ndarray]]:
    """(point, array, rows): the units of other points that each unit is most correlated with.

    Units are counted over all points in their order; what is not beyond chance is left out.
    """
    directions = {name: state.directions for name, state in sketches.items()}
    everything = torch.cat(list(directions.values()))
    least = _CERTAIN * max(state.error for state in sketches.values())
    first = 0
    for name, mine in directions.items():
        found = []
        for part in mine.split(_AT_ONCE):
            estimates = part @ everything.T
            estimates[:, first : first + len(mine)] = 0.0
            found.append(strongest(estimates, CORRELATED, least))
        first += len(mine)
        units, values = (torch.cat(column) for column in zip(*found, strict=True))
        yield name, "across", units.numpy()
        yield name, "across_correlations", values.clamp(-1, 1).numpy()
