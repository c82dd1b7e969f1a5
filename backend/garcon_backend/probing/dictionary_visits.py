"""A dictionary in a pass: its latents are visited where its point is, and what they become is written back.

What the model goes on with is the model's own value and the *change* that the visits make to the reconstruction,

    value + (decode(f') - decode(f)),

so where nobody changes anything it is the same to the last bit, whatever the reconstruction lacks. The usual order, the
reconstruction and then its error, rounds. For gradients it says what the error is (Marks et al. 2024): *live*, it is computed of the
value, so that below the dictionary gradients are the model's own; *frozen*, a constant, so that they go through the latents alone;
*none*, there is no error, and the model goes on with the reconstruction.

Latents may be cut over the tensor-parallel ranks. Each encodes its own from the whole value, top-k ones are chosen among all, and what
the parts write is added up.

Where nothing but recorders looks at latents of which few are on, as over data, all of them are never held: tile by tile, what is
not 0 is kept of the encoder's output, and recorders are shown a sparse tensor of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor

from garcon_backend.dictionaries import Candidates, Dictionary, SparseLatents
from garcon_backend.distributed.collectives import (
    Layout,
    Ranks,
    all_gather_over_ranks,
    piece_of_rank,
    shared_by_ranks,
    sum_over_ranks,
)
from garcon_backend.distributed.gather_group import GatherGroup
from garcon_backend.hook_sites.sites import Visitor
from garcon_backend.probing.loaded_dictionaries import LoadedDictionary
from garcon_backend.probing.user_calls import Point
from garcon_jupyter.wire.requests import Splice

FEW = 1 / 8
"""Up to which share of latents that are not 0 they are held alone: each takes 28 bytes with where it is, and 4 among all."""


class VisitingPass(Protocol):
    """What a dictionary needs of the pass that it is in."""

    grad: bool
    positions: Tensor | None
    gather_group: GatherGroup

    def visit(self, point: Point, x: Tensor) -> Tensor | None:
        """What the probes of a point make of its value; None where they leave it."""
        ...

    def may_change(self, point: Point) -> bool:
        """Whether visits of a point may put out another tensor, as every rank knows before the pass."""
        ...


Held = TypeVar("Held", bound=Dictionary)
"""The class of the dictionary that is visited."""


class VisitedDictionary(ABC, Generic[Held]):
    """A dictionary in the pass of one request, on one rank.

    Args:
        probed: the pass.
        tp: the tensor-parallel group of this rank.
        loaded: the dictionary.
        points: those of it that are visited, by their names.
        splice: how the model goes on through it; None where it is looked at, or edited, alone.
        lies: how values lie on the tensor-parallel ranks at the points that it reads and writes, by their names.
    """

    def __init__(
        self,
        probed: VisitingPass,
        tp: Ranks,
        loaded: LoadedDictionary,
        points: dict[str, Point],
        splice: Splice | None,
        lies: dict[str, Layout],
    ) -> None:
        assert loaded.here is not None
        self._dictionary = cast(Held, loaded.here)
        self._probed, self._loaded, self._points = probed, loaded, points
        self._splice = splice or Splice(loaded.points.name)
        self._lies, self._tp = lies, tp
        self._begin()

    def _begin(self) -> None:
        """Have nothing yet of what is kept from one point to the next."""

    @abstractmethod
    def visitors(self) -> list[tuple[str, Visitor]]:
        """What visits which point of the model."""

    def _point_of(self, word: str, host: str) -> Point | None:
        """One of its points, where it is visited."""
        return self._points.get(self._loaded.points.point(word, host))

    def _visited(self, word: str, value: Tensor, host: str = "") -> Tensor | None:
        """What the probes of a point make of its value; None where they leave it."""
        if (point := self._point_of(word, host)) is None:
            return None
        edits = not all(probe.spec.read_only for probe in point.forward)
        # An edit in place is not to reach what it is compared with.
        return self._probed.visit(point, value.clone() if edits else value)

    def _apart(self, host: str = "") -> bool:
        """Whether a reconstruction and an error have to be there as tensors of their own."""
        looked_at = any(self._point_of(word, host) for word in ("reconstruction", "error"))
        kind = self._splice.error
        through = torch.is_grad_enabled() and self._probed.grad and kind == "frozen"
        return looked_at or through or kind == "none"

    def _rebuilt(
        self, value: Tensor, before: Tensor, after: Tensor, writes: str, host: str = ""
    ) -> Tensor | None:
        """What the model goes on with at a point that is written, of the reconstruction before and after visits of latents."""
        kind = self._splice.error
        seen = self._visited("reconstruction", after, host)
        new = after if seen is None else seen
        frozen = kind == "frozen"
        lacks, error = None, None
        if self._point_of("error", host) is not None:
            lacks = self._whole(value, writes) - before
            lacks = lacks.detach() if frozen else lacks
            error = self._visited("error", lacks, host)
        if kind == "none":
            return self._on_value(torch.zeros_like(value), new, writes)
        unchanged = new is before and error is None
        if unchanged and not (frozen and torch.is_grad_enabled()):
            return None
        change = new - (before.detach() if frozen else before)
        if error is not None and lacks is not None:
            change = change + (error - lacks)
        return self._on_value(value.detach() if frozen else value, change, writes)

    def _summed(self, written: Tensor) -> Tensor:
        """What the parts of all ranks write."""
        return sum_over_ranks(written, self._tp) if self._loaded.parts > 1 else written

    def _shared(self, whole: Tensor) -> Tensor:
        """For the encoder alone, of which each rank has a part: what else reads it is the same on every rank."""
        return shared_by_ranks(whole, self._tp) if self._loaded.parts > 1 else whole

    def _whole(self, value: Tensor, at: str) -> Tensor:
        """A value [b, p, …] with all its units on every rank, side by side, in the dictionary's dtype."""
        flat, lies = value.flatten(2).to(self._dictionary.dtype), self._lies[at]
        if lies.chunks == 1:
            return flat
        return all_gather_over_ranks(flat, flat.shape[-1] * lies.chunks, self._tp)

    def _on_value(self, value: Tensor, change: Tensor, at: str) -> Tensor:
        """A value with a change of all units added to this rank's."""
        if self._lies[at].chunks > 1:
            change = piece_of_rank(change, self._tp)
        return value + change.to(value.dtype).view(value.shape)

    def _but_bypassed(self, value: Tensor, new: Tensor) -> Tensor:
        """The model's own value at the positions that go past the dictionary."""
        positions = self._probed.positions
        if not self._splice.bypass or positions is None:
            return new
        places = self._probed.gather_group.scatter_rows(positions)
        past = torch.isin(places, torch.tensor(self._splice.bypass, device=places.device))
        return torch.where(past.view(*past.shape, *[1] * (value.dim() - 2)), value, new)


class DictionaryVisits(VisitedDictionary[Dictionary]):
    """One that reads one point; the rest as there."""

    def _begin(self) -> None:
        self._x = self._before = self._after = torch.empty(0)
        self._edited = False

    def visitors(self) -> list[tuple[str, Visitor]]:
        """What visits which point of the model."""
        points = self._loaded.points
        if points.reads == points.writes:
            return [(points.reads, self._read_and_write)]
        return [(points.reads, self._read), (points.writes, self._write)]

    # -- reading ---------------------------------------------------------------------------------

    def _read_and_write(self, value: Tensor) -> Tensor | None:
        self._read(value)
        return self._write(value)

    def _read(self, value: Tensor) -> None:
        """Encode what is at the point that is read, and visit what comes of it."""
        self._x = self._whole(value, self._loaded.points.reads)
        if (point := self._only_recorded()) and (few := self._few(self._x)) is not None:
            self._edited = False
            self._probed.visit(point, few.tensor())
            return
        whole = self._shared(self._x)
        if self._dictionary.kind == "pursuit":
            self._before, seen = self._dictionary.encode(whole), None
        else:
            pre = self._dictionary.pre_activation(whole)
            seen = self._visited("pre_activation", pre)
            self._before = self._activated(pre)
        latents = self._before if seen is None else self._activated(seen)
        new = self._visited("latents", latents)
        self._after = latents if new is None else new
        self._edited = self._after is not self._before

    def _only_recorded(self) -> Point | None:
        """The point of the latents, where nothing but recorders looks at it, which read what is not 0, and nobody at others."""
        point = self._point_of("latents", "")
        if point is None or len(self._points) > 1 or self._splice.error == "none":
            return None
        if point.backward or point.wanted or torch.is_grad_enabled():
            return None
        recorded = all(
            probe.spec.sharded
            and probe.spec.read_only
            and getattr(probe.function, "reads_sparse", False)
            for probe in point.forward
        )
        return point if recorded else None

    def _few(self, x: Tensor) -> SparseLatents | None:
        """The latents of this rank that are not 0; None where they are not few."""
        if self._loaded.parts == 1 or not self._dictionary.form.competes:
            return self._dictionary.encode_few(x, FEW)
        if self._dictionary.form.activation.k > FEW * self._dictionary.description.latents:
            return None
        return self._dictionary.own_sparse(
            self._chosen_of_all(self._dictionary.candidates(x)), x.shape[:-1]
        )

    def _chosen_of_all(self, own: Candidates) -> Candidates:
        """Of the candidates of all tensor-parallel ranks those that pass."""
        count = own.values.shape[-1] * self._tp.size
        values, latents = (self._tp.all_gather(part, count) for part in (own.values, own.latents))
        return self._dictionary.chosen([Candidates(values, latents)])

    def _activated(self, pre: Tensor) -> Tensor:
        """The latents of this rank's pre-activations; those that compete, compete with those of all ranks."""
        if self._loaded.parts == 1 or not self._dictionary.form.competes:
            return self._dictionary.activated(pre)
        own = self._dictionary.candidates_among(pre.detach())
        return self._dictionary.passed(pre, self._chosen_of_all(own))

    # -- writing ---------------------------------------------------------------------------------

    def _write(self, value: Tensor) -> Tensor | None:
        """What the model goes on with at the point that is written; None where that is what it had."""
        writes, apart = self._loaded.points.writes, self._apart()
        if not (self._edited or apart):
            return None
        if apart:
            before = self._decoded(self._before)
            after = before if self._after is self._before else self._decoded(self._after)
            new = self._rebuilt(value, before, after, writes)
        else:
            new = self._on_value(value, self._change(), writes)
        self._x = self._before = self._after = torch.empty(0)
        return new if new is None else self._but_bypassed(value, new)

    def _change(self) -> Tensor:
        """By how much the visits change the reconstruction."""
        written = self._dictionary.written(self._after - self._before)
        return self._dictionary.finished_change(self._summed(written), self._x)

    def _decoded(self, latents: Tensor) -> Tensor:
        if self._loaded.parts == 1:
            return self._dictionary.decode(latents, self._x)
        written = self._summed(self._dictionary.written(latents))
        return self._dictionary.finished(written, self._x)
