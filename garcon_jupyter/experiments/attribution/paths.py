"""Where between the corrupted and the clean run gradients are taken, and by which weights they are averaged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from garcon_jupyter.experiments.attribution.pair_batches import CLEAN, CORRUPTED

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client


@dataclass(frozen=True)
class Path:
    """Rows of each pair at which gradients are taken.

    Attributes:
        rows: their roles in a batch of pairs.
        weights: of their gradients; they add up to one.
        shares: how much of the clean value each of them is given where a probe sets it (0 is the corrupted value);
            empty where the rows are runs as they are.
    """

    rows: tuple[int, ...]
    weights: tuple[float, ...]
    shares: tuple[float, ...] = ()

    @classmethod
    def between(cls, first: int, nodes: tuple[tuple[float, float], ...]) -> Path:
        """Rows from number `first` on, one for each (share, weight)."""
        shares, weights = zip(*nodes, strict=True)
        return cls(tuple(range(first, first + len(nodes))), weights, shares)


AS_THEY_ARE = {
    "corrupted": Path((CORRUPTED,), (1.0,)),
    "clean": Path((CLEAN,), (1.0,)),
    "mean": Path((CLEAN, CORRUPTED), (0.5, 0.5)),
}
"""Methods that need no run but the two."""


def entry_of(rmodel: Client) -> str:
    """The point at which a text enters the model."""
    return "layers.0.resid_pre" if "embed.out" in rmodel.catalog.refused else "embed.out"


def midpoints(steps: int) -> tuple[tuple[float, float], ...]:
    """(share, weight) of equal steps between 0 and 1, each taken at its middle.

    Along a path of embeddings the gradient changes fast in places, as norms see directions and no lengths, and equal steps are
    the robust choice.
    """
    return tuple(((step + 0.5) / steps, 1 / steps) for step in range(steps))


@cache
def gauss_legendre(steps: int) -> tuple[tuple[float, float], ...]:
    """(share, weight) of Gauss and Legendre's quadrature between 0 and 1, which is exact for polynomials up to degree 2·steps − 1.

    Along a path of one layer's values the gradient changes slowly: on SmolLM2 three of these nodes left a tenth of the error
    of five equal steps.
    """
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return tuple(zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))
