"""The activations of a batch at the points of a dictionary, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

from garcon_backend.execution.inputs import Inputs
from garcon_backend.execution.passes import Passes
from garcon_backend.probing.point_places import site_here
from garcon_backend.probing.probed_pass import ProbedPass
from garcon_backend.probing.rank import Rank
from garcon_backend.probing.user_calls import Point
from garcon_jupyter.errors import PointUnavailable
from garcon_jupyter.points import Address


class FarEnough(BaseException):
    """A pass has reached the last point that it is for. No error: it ends the forward on all ranks of the model at the same module."""


class RowsPass(ProbedPass):
    """A pass that takes the values of some points, and goes no further than the last of them.

    With several stages it goes to its end, since the next ones wait for what this one sends.

    Attributes:
        values: of each point the whole value of the whole batch, on the leader of the stage that has it; None on its other ranks.
    """

    def __init__(self, rank: Rank, rows: int, points: Sequence[Address]) -> None:
        super().__init__(rank, "", rows=rows)
        for address in points:
            self._point(address)
        self.values: dict[str, Tensor | None] = {}
        self._stops = rank.mesh.degrees.pp == 1

    def visit(self, point: Point, x: Tensor) -> Tensor | None:
        """Take the value."""
        self.rank.interrupts.point = point.address.name
        whole = self._gather(point, x)
        # The model may go on in this memory.
        self.values[point.address.name] = None if whole is None else whole.clone()
        if self._stops and len(self.values) == len(self.points):
            raise FarEnough
        return None


def rows_of(
    passes: Passes, inputs: Inputs, points: Sequence[Address], kept: Tensor
) -> list[Tensor]:
    """The rows of points at the tokens that are kept, float32 [n, units] of each; on the ranks of the first replica that have them.

    Raises:
        PointUnavailable: the model did not call the module of a point.
    """
    rank = passes.rank
    probed = RowsPass(rank, len(inputs.ids), points)
    with passes.installed(probed), torch.no_grad(), suppress(FarEnough):
        passes.read(probed, inputs, keep=1)
    found = []
    for address in points:
        if site_here(rank, address) is None:
            continue
        if address.name not in probed.values:
            raise PointUnavailable(
                f"{address.name} has no value: the model did not call its module in this pass.",
                "Train on a point that was called; rmodel.look(text) shows which were.",
            )
        if rank.mesh.replica == 0:
            found.append(shared(rank, probed.values[address.name], kept, address))
    return found


def shared(rank: Rank, whole: Tensor | None, kept: Tensor, address: Address) -> Tensor:
    """Of a value that the leader of a tensor-parallel group has the rows that are kept, on all of its ranks."""
    if whole is not None:
        rows = whole.flatten(2)[kept.to(whole.device)].float()
    else:
        units = 1
        for size in rank.bound.catalog.shape(address)[2:]:
            units *= int(size)
        rows = torch.empty(int(kept.sum()), units, device=rank.mesh.device)
    return rank.mesh.tp.broadcast(rows)


def kept_tokens(inputs: Inputs, left_out: Sequence[str | int], special: Tensor) -> Tensor:
    """Which tokens of a batch are trained on, bool [b, p]: no padding, and none of those that are left out.

    Args:
        left_out: "first" for the first of each row, "special" for special tokens, or ids.
        special: ids of special tokens.
    """
    kept = (
        torch.ones_like(inputs.ids, dtype=torch.bool)
        if inputs.mask is None
        else inputs.mask.clone()
    )
    for word in left_out:
        if word == "first":
            kept &= inputs.positions != 0
        elif word == "special":
            kept &= ~torch.isin(inputs.ids, special)
        else:
            kept &= inputs.ids != word
    return kept
