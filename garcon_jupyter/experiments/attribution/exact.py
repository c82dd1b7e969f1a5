"""A sample of what is attributed, patched exactly beside it: how far gradients are off."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.activation_patching.grid import GridCell
from garcon_jupyter.experiments.activation_patching.measures import Measure
from garcon_jupyter.experiments.activation_patching.pairs import Pairs
from garcon_jupyter.experiments.activation_patching.requests import CellRequests, Rows, one_row
from garcon_jupyter.experiments.activation_patching.results import TOKENS, measured
from garcon_jupyter.experiments.attribution.cells import BY_POSITION

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client
    from garcon_jupyter.experiments.result import Label

Place = tuple[int, ...]


@dataclass(frozen=True)
class SampledCells:
    """Some cells, to be patched.

    Attributes:
        patterns: of their points.
        names: of these, as cells number them.
        sampled: the cells.
        axes: of all cells that they are of.
    """

    patterns: tuple[str, ...]
    names: list[str]
    sampled: Sequence[GridCell]
    axes: dict[str, tuple[Label, ...]]

    def cells(self, length: int) -> Iterator[GridCell]:
        """Those of texts of so many tokens."""
        for cell in self.sampled:
            at = dict(zip(self.axes, cell.at, strict=True))
            if all(at.get(axis, -1) < length for axis in BY_POSITION):
                yield cell


def sample(values: Tensor, count: int, seed: int) -> list[Place]:
    """Places of so many cells: half of them the strongest by size, the others drawn from the rest. Where there is no number is no cell.

    Most cells of a model are near zero; a sample of those alone would say nothing of the ones that are read.
    """
    import torch

    flat = values.detach().flatten().abs()
    by_size = flat.nan_to_num(nan=-1.0).argsort(descending=True, stable=True)
    order: list[int] = by_size[: int((~flat.isnan()).sum())].tolist()
    strongest = order[: -(-count // 2)]
    drawn = random.Random(seed).sample(
        order[len(strongest) :], min(count, len(order)) - len(strongest)
    )
    places = torch.unravel_index(torch.tensor(sorted([*strongest, *drawn])), values.shape)
    return [tuple(place) for place in torch.stack(places, 1).tolist()]


def patched(
    rmodel: Client,
    pairs: Pairs,
    measure: Measure,
    cells: SampledCells,
    like: Tensor,
    rows: Rows = one_row,
) -> Tensor:
    """What patching these cells gives, [pair, …] as shares; NaN for all others.

    Args:
        like: of this shape.
        rows: what rows a cell takes.
    """
    import torch

    sources = pairs.sources(True, "patch", 0)
    requests = CellRequests(rmodel, pairs, cells, True, sources, measure, rows=rows)
    exact = torch.full(like.shape, float("nan"), dtype=like.dtype)
    for one in measured(requests, TOKENS, progress=False):
        exact[(one.where.pair, *one.where.cell.at)] = one.share
    return exact


def apart(values: Tensor, exact: Tensor) -> Mapping[str, float | int]:
    """How far values are from exact ones, where there are some."""
    import torch

    seen = ~exact.isnan()
    mine, theirs = values[seen].double(), exact[seen].double()
    error = mine - theirs
    found: dict[str, float | int] = {"cells": int(seen.sum())}
    if len(mine) > 1:
        found["pearson"] = float(torch.corrcoef(torch.stack([mine, theirs]))[0, 1])
    return found | {
        "largest error": float(error.abs().max()),
        "relative error": float(error.norm() / theirs.norm()),
    }


def check_numbers(**numbers: tuple[int, int]) -> None:
    """Refuse what is no number of things, by name: the number, and the least that it may be.

    Raises:
        BadRequest: says which.
    """
    for word, (number, least) in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise BadRequest(f"{word}={number!r} is no number of them.", f"Give at least {least}.")
