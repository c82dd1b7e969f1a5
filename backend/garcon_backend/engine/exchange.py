"""Values that one pipeline stage has and the others need: between the leaders of the stages."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from garcon_backend.engine.mesh import Mesh


def over_stages(mesh: Mesh, value: Any) -> Any:
    """The value of the first stage that has one (is not None), on the leader of every stage.

    Collective over the leaders of all stages; other ranks get None, as they have nothing to run.

    Args:
        mesh: the ranks.
        value: anything that pickles, tensors included, or None.
    """
    if mesh.degrees.pp == 1 or not mesh.leads:
        return value
    ranks = mesh.pipeline
    votes: list[Any] = [None] * ranks.size
    dist.all_gather_object(votes, value is not None, group=ranks.group)
    owner = next((index for index, has in enumerate(votes) if has), None)
    if owner is None:
        return None
    box = [value if ranks.rank == owner else None]
    dist.broadcast_object_list(box, ranks.members[owner], group=ranks.group)
    return box[0]
