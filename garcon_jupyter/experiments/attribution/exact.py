"""Cells patched, one run each: what an attribution is held against."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.connection.background import Pace
from garcon_jupyter.experiments.attribution.cells import Cells
from garcon_jupyter.experiments.attribution.text_pair import TextPair
from garcon_jupyter.experiments.clean_passes import contexts

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

Place = tuple[int, ...]

TOKENS = 4096
"""Tokens of one forward at most: what bounds its logits on the server."""

FIRST_TOKENS = 256
"""Tokens of the first one, before it is known how long that takes."""


def sample(values: Tensor, count: int, seed: int) -> list[Place]:
    """Places of so many cells: half of them the strongest by size, the others drawn from the rest.

    Most cells of a model are near zero; a sample of those alone would say nothing of the ones that are read.
    """
    order = values.detach().flatten().abs().argsort(descending=True, stable=True).tolist()
    strongest = order[: -(-count // 2)]
    drawn = random.Random(seed).sample(
        order[len(strongest) :], min(count, len(order)) - len(strongest)
    )
    strides = [values.stride(dim) for dim in range(values.dim())]
    sides = list(zip(strides, values.shape, strict=True))
    return [
        tuple(flat // stride % size for stride, size in sides)
        for flat in sorted([*strongest, *drawn])
    ]


def patched(rmodel: Client, pair: TextPair, cells: Cells, places: Sequence[Place]) -> list[float]:
    """The metric of the corrupted run with one cell of the clean one, for each of some cells."""
    first, most = (max(1, tokens // pair.ids.shape[1]) for tokens in (FIRST_TOKENS, TOKENS))
    pace, todo, found = Pace(first, most), list(places), []
    while todo:
        part, todo = todo[: pace.size], todo[pace.size :]
        with pace.piece(len(part)):
            found += _run(rmodel, pair, cells, part)
    return found


def _run(rmodel: Client, pair: TextPair, cells: Cells, places: Sequence[Place]) -> list[float]:
    """One forward of the pair, and of a row for each cell."""
    metric = pair.metric
    at: dict[str, list[tuple[int, tuple[Any, ...]]]] = {}
    for row, place in enumerate(places, start=len(pair.ids)):
        point, index = cells.index(place)
        at.setdefault(point, []).append((row, index))
    with contexts(rmodel, "patch") as name:
        probes = [
            rmodel.probe_points[point].probe(_patch(rows), name=name) for point, rows in at.items()
        ]
        measured = rmodel.forward(
            pair.batch(len(places)), probes=probes, logits=lambda logits: metric(logits).cpu()
        )
    values: list[float] = measured[len(pair.ids) :].tolist()
    return values


def _patch(rows: Sequence[tuple[int, tuple[Any, ...]]]) -> Callable[[Any, Any], None]:
    """A probe that gives each row its own cell of row 0, the clean run."""

    def patch(save_ctx: Any, tensor: Any) -> None:
        clean = tensor[0].clone()
        for row, index in rows:
            tensor[(row, *index)] = clean[index]

    return patch
