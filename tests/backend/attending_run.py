"""What each rank does in the tests of own attention: read a padded batch and continue a whole one."""

from __future__ import annotations

from pathlib import Path

import torch

from garcon_backend.distributed.mesh import Mesh
from garcon_jupyter.errors import BadDegrees
from garcon_jupyter.wire.launch_spec import Degrees
from tests.backend.bare_rank import BareRank
from tests.backend.cases import IDS, MASK

NEW = 4
"""Tokens to generate."""


def read_all(folder: str, names: list[str], layout: dict[str, int]) -> dict[str, str]:
    """Load the checkpoints of a folder in turn; the numbers are written beside them by the rank that has them.

    Returns:
        Why a checkpoint was refused, by its name.
    """
    torch.set_num_threads(1)
    mesh = Mesh.form(Degrees(**layout))
    refused = {}
    for name in names:
        try:
            ours = BareRank(Path(folder) / name, None, mesh)
        except BadDegrees as error:
            refused[name] = str(error)
            continue
        logits, ids = ours.forward(IDS, MASK.bool()), ours.generate(IDS, NEW)
        if logits is not None:
            torch.save((logits, ids), Path(folder) / f"{name}-{'-'.join(layout)}.pt")
    mesh.leave()
    return refused
