"""The loss of the model, as it is, with the reconstruction of a dictionary in it, and with zeros there.

Tokens that a dictionary is not trained on stay as they are.
"""

from __future__ import annotations

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

    Args:
        reads, writes: points of the dictionary.
        trainer: on the ranks that have them; None elsewhere.
        kept: tokens where it stands, bool [b, p].
        stand: whether it does, or zeros.
    """

    def __init__(
        self,
        rank: Rank,
        reads: Address,
        writes: Address,
        trainer: Trainer | None,
        kept: Tensor,
        stand: Stand,
    ) -> None:
        super().__init__(rank, "", rows=len(kept))
        self._reads, self._writes = reads, writes
        self._trainer, self._kept, self._stand = trainer, kept, stand
        self._read: Tensor | None = None
        for address in () if stand == "clean" else (reads, writes):
            self._point(address)

    def visit(self, point: Point, x: Tensor) -> Tensor | None:
        """Take what is read; give the model what is written."""
        name = point.address.name
        whole = self._gather(point, x)
        if name == self._reads.name and self._trainer is not None:
            self._read = shared(self.rank, whole, self._kept, self._reads)
        if name != self._writes.name:
            return None
        made = self._made()
        new = None
        if whole is not None and made is not None:
            flat = whole.flatten(2).clone()
            flat[self._kept.to(flat.device)] = made.to(flat.dtype)
            new = flat.view_as(whole)
        return self._scatter(point, new, x)

    def _made(self) -> Tensor | None:
        if self._trainer is None or self._read is None:
            return None
        if self._stand == "ablated":
            return self._read.new_zeros(len(self._read), self._trainer.d_out)
        return self._trainer.reconstruction(self._read)


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
