"""What each rank does in the tests of patching over ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.kernel.startup import merged
from garcon_jupyter.wire import requests as wire
from garcon_jupyter.wire.launch_spec import Degrees
from tests.backend.bare_rank import BareRank

CLEAN, CORRUPTED = [0, 40, 41, 42, 99], [0, 40, 77, 42, 99]
LAYERS, HEADS, GROUPS = 4, 6, 3

Entry = tuple[int, tuple[int, ...]]
"""Number of a point, and a place."""


def points_and_cells() -> tuple[list[str], list[Entry]]:
    """Streams by position, heads, key heads and neurons, of all layers; and what comes before and after them."""
    points: list[str] = ["embed.out", "final_norm.out"]
    cells: list[Entry] = [(0, (2, -1, -1)), (1, (4, -1, -1))]
    for layer in range(LAYERS):
        for name, count, dim in (
            ("resid_pre", 5, 0),
            ("attn.z", HEADS, 1),
            ("attn.k", GROUPS, 1),
            ("mlp.post_activation", 4, 1),
            ("attn.pattern", HEADS, 0),
        ):
            points.append(f"layers.{layer}.{name}")
            for number in range(count):
                place = [-1, -1, -1]
                place[dim] = number * (21 if name.startswith("mlp") else 1)
                cells.append((len(points) - 1, tuple(place)))
    return points, cells


def request(exact: bool = False, few: int | None = None) -> wire.Patch:
    points, cells = points_and_cells()
    cells = cells[:few]
    return wire.Patch(
        "test",
        texts=torch.tensor([CLEAN, CORRUPTED]),
        sources=((0,), (0,)),
        cells=(1,) * len(cells),
        points=tuple(points),
        patches=torch.tensor(
            [[cell, point, -1, *place] for cell, (point, place) in enumerate(cells)]
        ),
        answers=torch.tensor([[17, 23]] * 2),
        exact=exact,
    )


def nowhere() -> wire.Patch:
    """A request with a head that there is not, of which ranks know in the middle of the pass."""
    wrong = request(few=3)
    wrong.patches = torch.tensor([[cell, 3, -1, -1, HEADS, -1] for cell in range(3)])
    return wrong


def sweep(path: str, layout: dict[str, int]) -> list[Any]:
    """All cells, those of a request that is too small for all ranks, one that is wrong, and a few, together and one by one."""
    torch.set_num_threads(1)
    mesh = Mesh.form(Degrees(**layout))
    ours = BareRank(Path(path), None, mesh)
    if mesh.world > 1:
        catalogs: list[Any] = [None] * mesh.world
        dist.all_gather_object(catalogs, ours.catalog)
        ours.catalog = ours.bound.catalog = merged(catalogs)
    found: list[Any] = []
    for one in (request(), request(few=1), nowhere(), request(few=9), request(True, few=9)):
        try:
            answer = ours.run(one)
            found.append(answer and [answer.texts.tolist(), answer.cells.tolist(), answer.whole])
        except Exception as error:  # noqa: BLE001 - it is told to the test
            found.append(f"{type(error).__name__}: {error}")
    assert ours.installed() == ours.untouched
    if mesh.world > 1:
        mesh.leave()
    return found
