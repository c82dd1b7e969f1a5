"""The loss of the model, as it is, with the reconstruction of a dictionary in it, and with zeros there.

Tokens that a dictionary is not trained on stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from garcon_backend.dictionaries.training import Trainer
from garcon_backend.distributed.collectives import Layout
from garcon_backend.execution.inputs import Inputs
from garcon_backend.execution.passes import Passes, logits_of
from garcon_backend.execution.training.rows import shared
from garcon_backend.probing.probed_pass import ProbedPass
from garcon_backend.probing.rank import Rank
from garcon_backend.probing.user_calls import Point
from garcon_jupyter.points import Address

Stand = Literal["clean", "spliced", "ablated"]


class SplicedPass(ProbedPass):
    """A pass in which what a dictionary makes of one point stands at another.

    A cross-layer transcoder's stands at each point that it writes, of what was read so far. A crosscoder's stands at the last of its points.

    Args:
        ends: each point that the dictionary reads, with the one that it writes.
        trainer: on the ranks that have them; None elsewhere.
        kept: tokens where it stands, bool [b, p].
        stand: whether it does, or zeros.
    """

    def __init__(
        self,
        rank: Rank,
        ends: Sequence[tuple[Address, ...]],
        trainer: Trainer | None,
        kept: Tensor,
        stand: Stand,
    ) -> None:
        super().__init__(rank, "", rows=len(kept))
        self._reads, self._writes = ([*side] for side in zip(*ends, strict=True))
        self._trainer, self._kept, self._stand = trainer, kept, stand
        self._read: dict[int, Tensor] = {}
        """The rows at the points so far."""
        names = dict.fromkeys(address.name for end in ends for address in end)
        for address in () if stand == "clean" else map(rank.bound.catalog.point, names):
            self._point(address)
        self._stands_at = {address.name: number for number, address in enumerate(self._writes)}
        """The points where something stands, each with its number."""
        if self._reads == self._writes:  # what is read last decides about all
            self._stands_at = dict([self._stands_at.popitem()])

    def visit(self, point: Point, x: Tensor) -> Tensor | None:
        """Take what is read; give the model what is written."""
        name = point.address.name
        whole = self._gather(point, x)
        for number, address in enumerate(self._reads):
            if name == address.name and self._trainer is not None:
                self._read[number] = shared(self.rank, whole, self._kept, address)
        if name not in self._stands_at:
            return None
        made = self._made(self._stands_at[name])
        new = None
        if whole is not None and made is not None:
            flat = whole.flatten(2).clone()
            flat[self._kept.to(flat.device)] = made.to(flat.dtype)
            new = flat.view_as(whole)
        return self._scatter(point, new, x)

    def _made(self, number: int) -> Tensor | None:
        """What stands at one of the points that are written."""
        trainer, points = self._trainer, len(self._reads)
        if trainer is None or not self._read:
            return None
        like, width = next(iter(self._read.values())), trainer.d_in // points
        if self._stand == "ablated":
            return like.new_zeros(len(like), trainer.d_out // points)
        none = like.new_zeros(len(like), width)
        rows = torch.cat([self._read.get(n, none) for n in range(points)], 1)
        return trainer.reconstruction(rows).chunk(points, 1)[number]


def loss_of(passes: Passes, probed: SplicedPass, inputs: Inputs) -> float | None:
    """The cross entropy of next tokens in a pass, in nats; on the leader of the last stage."""
    with passes.installed(probed), torch.no_grad():
        output = passes.read(probed, inputs)
    if not passes.rank.mesh.last_stage:
        return None
    logits = probed.gather_group.gather(logits_of(output), Layout())
    if logits is None:
        return None
    real = torch.ones_like(inputs.ids, dtype=torch.bool) if inputs.mask is None else inputs.mask
    # Padding may be on either side: a token is predicted where it and the one before are real.
    predicted = real[:, 1:] & real[:, :-1]
    return float(cross_entropy(logits[:, :-1][predicted].float(), inputs.ids[:, 1:][predicted]))
