"""What each rank does in the parity tests: everything that can be asked of a point, at one layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.kernel.startup import merged
from garcon_jupyter.wire.launch_spec import Degrees
from tests.backend.bare_rank import BareRank
from tests.backend.cases import IDS, MASK, changed, changed_in_place, loss
from tests.backend.copies import copies

NEW = 5
"""Tokens to generate."""

Found = dict[str, dict[str, Any]]


def compute_all(
    folder: str,
    layout: dict[str, int],
    edited: dict[str, list[str]],
    dtype: str | None = None,
    in_place: bool = True,
) -> None:
    """One group of ranks loads all cases in turn and writes down what it leads.

    Args:
        folder: holds a checkpoint under each case's name; results go beside them.
        layout: the degrees.
        edited: for each case, the points to edit.
        dtype: to load in.
        in_place: edit in place as well.
    """
    torch.set_num_threads(1)
    mesh = Mesh.form(Degrees(**layout))
    for name, points in edited.items():
        found = compute(Path(folder) / name, mesh, points, dtype, in_place)
        torch.save(found, Path(folder) / f"{name}-{label(layout)}-{mesh.rank}.pt")
    mesh.leave()


def label(layout: dict[str, int]) -> str:
    return "-".join(f"{word}{degree}" for word, degree in layout.items())


def compute(path: Path, mesh: Mesh, points: list[str], dtype: str | None, in_place: bool) -> Found:
    """All numbers of one checkpoint that this rank is told."""
    ours = BareRank(path, dtype, mesh)
    catalogs: list[Any] = [None] * mesh.world
    dist.all_gather_object(catalogs, ours.catalog)
    ours.catalog = ours.bound.catalog = merged(catalogs)
    parameters = ours.catalog.parameters
    return {
        "values": ours.values(IDS, MASK, ours.catalog.names()),
        "gradients": ours.gradients(loss, IDS, MASK, ours.floating_points()),
        "edited": logits_of_edits(ours, points, changed),
        "edited in place": logits_of_edits(ours, points if in_place else [], changed_in_place),
        "parameters": {n: ours.tools.parameters.get(n) for n in parameters},
        "generated": {"ids": ours.generate(IDS, NEW)},
        "gradients of parameters": ours.backward(loss, IDS, MASK, parameters=parameters),
    }


def logits_of_edits(
    ours: BareRank, points: list[str], edit: Callable[..., Any]
) -> dict[str, Tensor]:
    """The logits with an edit at each point, on the rank that answers."""
    found: dict[str, Tensor] = {}
    for one in copies(points):
        logits = ours.forward(one.ids, one.mask, one.edits(edit))
        found |= {} if logits is None else one.of_each(logits)
    return found
