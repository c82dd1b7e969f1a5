"""What each rank does in the tests of adapters on a model that is cut: all that can be asked of one with an adapter on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.kernel.startup import merged
from garcon_backend.models.adapters import Adapters
from garcon_jupyter.wire.launch_spec import Degrees
from tests.backend.bare_rank import BareRank

IDS = torch.tensor([[5, 80, 262, 17, 3], [9, 9, 200, 31, 4]])
NEW = 4
DTYPE = "float64"


def loss(logits: Tensor) -> Tensor:
    """Every logit matters, each differently."""
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))
    return (logits * weights.to(logits.dtype)).sum()


def compute_all(folder: str, layout: dict[str, int], cases: list[str]) -> None:
    """One group of ranks loads each case's checkpoint and adapter in turn, and writes down what it leads.

    Args:
        folder: holds directories CASE/base and CASE/lora; results go beside them.
        layout: the degrees.
    """
    torch.set_num_threads(1)
    mesh = Mesh.form(Degrees(**layout))
    for case in cases:
        ours = BareRank(Path(folder) / case / "base", DTYPE, mesh)
        adapters = Adapters.load({"a": str(Path(folder) / case / "lora")}, ours.model, mesh)
        catalogs: list[Any] = [None] * mesh.world
        dist.all_gather_object(catalogs, ours.catalog)
        ours.catalog = ours.bound.catalog = merged(catalogs)
        before = ours.forward(IDS)
        with adapters.on("a"):
            former, ours.untouched = ours.untouched, ours.installed()
            found = compute(ours)
        ours.untouched = former
        found["base"] = {"before": before, "after": ours.forward(IDS)}
        torch.save(found, Path(folder) / case / f"{'-'.join(layout)}-{mesh.rank}.pt")
    mesh.leave()


def compute(ours: BareRank) -> dict[str, dict[str, Any]]:
    """All numbers of a model as it is now that this rank is told."""
    names = ours.catalog.parameters
    return {
        "logits": {"": ours.forward(IDS)},
        "values": ours.values(IDS, None, ours.catalog.names()),
        "gradients": ours.gradients(loss, IDS, None, ours.floating_points()),
        "parameters": {name: ours.tools.parameters.get(name) for name in names},
        "gradients of parameters": ours.backward(loss, IDS, parameters=names),
        "generated": {"": ours.generate(IDS, NEW)},
    }
