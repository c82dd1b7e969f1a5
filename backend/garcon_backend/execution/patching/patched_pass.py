"""A pass in which some rows of a batch are given what other rows have.

A patch copies numbers between rows of the same tensor. So, unlike a probe of the user's, it needs no whole value: each rank
patches its own shard, and ranks say nothing to each other. A head that lies on another rank is that one's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from garcon_backend.distributed.collectives import Layout, Ranks
from garcon_backend.distributed.gather_group import GatherGroup
from garcon_backend.execution.patching.cells import ALL, RowPatch
from garcon_backend.probing.point_places import site_here
from garcon_backend.probing.probed_pass import ProbedPass
from garcon_backend.probing.rank import Rank
from garcon_backend.probing.user_calls import READ_IT, Point, left_behind
from garcon_backend.process.user_code import UserFailure
from garcon_jupyter.errors import BadRequest, GarconError, PointUnavailable
from garcon_jupyter.points import Address


class OwnPass(ProbedPass):
    """A pass at whose points something of ours is done, and no code of the user's runs.

    Each replica reads rows of its own, which no other knows of. What is wrong is told when the pass is over, as ranks
    depend on each other while it lasts.
    """

    def __init__(self, rank: Rank, rows: int, points: Iterable[Address]) -> None:
        super().__init__(rank, "", rows=rows)
        self.gather_group = GatherGroup(rank.mesh.tp, Ranks(device=rank.mesh.device), rows)
        for address in points:
            self._point(address)
        self._visited: set[str] = set()

    def visit(self, point: Point, x: Tensor) -> Tensor | None:
        """Note that a point was reached; what the model goes on with is for others to say."""
        self.rank.interrupts.point = point.address.name
        self._visited.add(point.address.name)
        if len(x) == self.batch[0]:
            return self._at(point, x)
        self.fail(
            PointUnavailable(
                f"{point.address.name} cannot be patched: it has {len(x)} rows, not one for each of {self.batch[0]} texts.",
                "Patch a point that each token has for itself, such as layers.*.resid_pre.",
            )
        )
        return None

    def _at(self, point: Point, x: Tensor) -> Tensor | None:
        raise NotImplementedError

    def may_change(self, point: Point) -> bool:
        """Any may."""
        return True

    def fail(self, error: GarconError) -> None:
        """The request fails, when the pass is over."""
        self.failure = self.failure or UserFailure(error, "")

    def check_visited(self) -> None:
        """Fail where the model did not call the module that a point is in."""
        for name, point in self.points.items():
            if name not in self._visited and site_here(self.rank, point.address) is not None:
                self.fail(
                    PointUnavailable(
                        f"{name} cannot be patched: the model did not call its module in this pass.",
                        "Patch a module that was called; rmodel.look(text) shows which were.",
                    )
                )


class KeptPass(OwnPass):
    """A pass that keeps the values of its points, as they lie on this rank.

    Attributes:
        kept: by point, [row, …].
    """

    def __init__(self, rank: Rank, rows: int, points: Iterable[Address]) -> None:
        super().__init__(rank, rows, points)
        self.kept: dict[str, Tensor] = {}

    def _at(self, point: Point, x: Tensor) -> None:
        self.kept[point.address.name] = x.detach().clone()


class PatchedPass(OwnPass):
    """A pass with patches.

    Args:
        patches: of each point, what is patched there.
        kept: of each point, the values [text, …] that patches take; None where the first rows of the batch are the texts.
    """

    def __init__(
        self,
        rank: Rank,
        rows: int,
        points: Iterable[Address],
        patches: Mapping[str, Sequence[RowPatch]],
        kept: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(rank, rows, [address for address in points if address.name in patches])
        self._patches, self._kept = patches, kept

    def _at(self, point: Point, x: Tensor) -> Tensor | None:
        name = point.address.name
        if point.left_behind:
            self.fail(PointUnavailable(left_behind(point), READ_IT))
            return None
        sources = x if self._kept is None else self._kept[name]
        new = x.detach().clone()
        for patch in self._patches[name]:
            try:
                index = self._local(point.layout, x, patch.place)
            except IndexError:
                self.fail(_nowhere(name, x, patch))
                return None
            if index is None:
                continue
            if len(patch.sources) == 1:
                new[(patch.row, *index)] = sources[(patch.sources[0], *index)]
            else:
                several = torch.stack([sources[(source, *index)] for source in patch.sources])
                new[(patch.row, *index)] = several.float().mean(0).to(new.dtype)
        return new

    def _local(
        self, layout: Layout, x: Tensor, place: Sequence[int]
    ) -> tuple[int | slice, ...] | None:
        """A place in this rank's shard; None where another rank has it.

        Raises:
            IndexError: no rank has it.
        """
        given = place[: x.dim() - 1]
        if any(one != ALL for one in place[len(given) :]):
            raise IndexError
        index: list[int | slice] = [slice(None) if one == ALL else one for one in given]
        for dim, one in enumerate(given, 1):
            cut = layout.chunks > 1 and layout.dim % x.dim() == dim
            if one >= x.shape[dim] * (layout.chunks if cut else 1):
                raise IndexError
            if cut and one != ALL:
                part = self.rank.mesh.tp_rank // layout.dup
                index[dim - 1] = here = one - part * x.shape[dim]
                if not 0 <= here < x.shape[dim]:
                    return None
        return tuple(index)


def _nowhere(name: str, x: Tensor, patch: RowPatch) -> BadRequest:
    place = ", ".join(":" if one == ALL else str(one) for one in patch.place)
    return BadRequest(
        f"{name} has no place [{place}]: its values are {[*x.shape[1:]]} on this rank.",
        "Give positions, heads and units that there are.",
    )
