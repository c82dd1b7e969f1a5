"""How far neighbours on a map are neighbours in the data (Venna and Kaski 2001). Functions here are sent by name."""

from __future__ import annotations

import torch
from torch import Tensor

AT_ONCE = 512
"""Rows whose distances to all others are held at once."""


def trustworthiness(rows: Tensor, dots: Tensor, neighbours: int) -> float:
    """1 less the weight of those that are near on the map and not in the data; 1 is the best.

    T = 1 − 2 / (n k (2n − 3k − 1)) · Σᵢ Σ_{j ∈ N_k(i)} max(0, r(i, j) − k), where N_k(i) are the k nearest dots of i on the map, and
    r(i, j) is the rank of j by its distance from i in the data, by the cosine.

    Args:
        rows: [n, f], the data.
        dots: [n, 2], the map, by straight distances.
        neighbours: k, less than n / 2.
    """
    n = len(rows)
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    dots = dots.double().to(unit.device)
    places = torch.arange(n, device=unit.device)
    worse = 0
    for first in range(0, n, AT_ONCE):
        here = places[first : first + AT_ONCE]
        one = torch.arange(len(here), device=unit.device)
        far = 1 - unit[here] @ unit.T
        far[one, here] = -torch.inf  # itself comes first
        ranks = far.argsort(dim=1, stable=True).argsort(1)
        apart = torch.cdist(dots[here], dots)
        apart[one, here] = torch.inf
        near = apart.argsort(dim=1, stable=True)[:, :neighbours]
        worse += int((ranks.gather(1, near) - neighbours).clamp(min=0).sum())
    return 1 - 2 * worse / (n * neighbours * (2 * n - 3 * neighbours - 1))
