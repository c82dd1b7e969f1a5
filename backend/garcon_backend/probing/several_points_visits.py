"""Dictionaries of several points in a pass, whose points come one after the other.

A *cross-layer transcoder* encodes where each layer is read. What that layer's latents, and all earlier ones', write is added up where the
layer is written. A *crosscoder* encodes once its last point is read; the earlier ones are past then, so what it says of them can be
read and not changed, and it writes the last one alone.

Where the points are on several stages of a pipeline, what later stages need goes along with the residual stream: of a cross-layer transcoder
the sums of what latents so far write into their layers, and by how much visits change them; of a crosscoder what is at the points so far.
Which of these are needed every rank knows before the pass.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from garcon_backend.dictionaries import Crosscoder, CrossLayer
from garcon_backend.hook_sites.sites import Visitor
from garcon_backend.probing.autograd import Tied
from garcon_backend.probing.dictionary_visits import VisitedDictionary

HeldOfSeveral = TypeVar("HeldOfSeveral", Crosscoder, CrossLayer)


class SeveralPointsVisits(VisitedDictionary[HeldOfSeveral]):
    """One that reads several points; the rest as there.

    Attributes:
        dtype: that it computes in.
    """

    def _begin(self) -> None:
        assert self._loaded.stages is not None
        self.dtype = self._dictionary.dtype
        self._ends, self._stages = self._loaded.points.ends, self._loaded.stages
        self._x: dict[int, Tensor] = {}
        """What was read at each point."""

    @abstractmethod
    def arriving(self) -> int:
        """How many numbers of each token come from the stage before."""

    @abstractmethod
    def arrive(self, numbers: Tensor) -> None:
        """Take them, [b, p, n]."""

    @abstractmethod
    def depart(self, like: Tensor) -> Tensor:
        """Those that go to the next stage, [b, p, n]; `like` tells b and p."""

    def _of_stages(self, first: int, last: int) -> list[int]:
        """Numbers of the points that are on stages from one to another, both counted in."""
        return [n for n, stage in enumerate(self._stages.each) if first <= stage <= last]

    def _so_far(self) -> list[int]:
        """Those of this stage and the ones before."""
        return self._of_stages(0, self._stages.own)

    def _earlier(self) -> list[int]:
        return self._of_stages(0, self._stages.own - 1)

    def _later(self) -> list[int]:
        return self._of_stages(self._stages.own + 1, max(self._stages.each))


class CrossLayerVisits(SeveralPointsVisits[CrossLayer]):
    """A cross-layer transcoder in a pass."""

    def _begin(self) -> None:
        super()._begin()
        self._before: dict[int, Tensor] = {}
        self._after: dict[int, Tensor] = {}
        self._came: dict[tuple[str, int], Tensor] = {}
        """What came from the stages before: ("before" or "change", layer that is written)."""

    def visitors(self) -> list[tuple[str, Visitor]]:
        """What visits which point of the model."""
        found: list[tuple[str, Visitor]] = []
        own = self._stages.own
        for layer in self._of_stages(own, own):
            reads, writes = self._ends[layer]
            if reads == writes:
                found.append((reads, partial(self._read_and_write, layer)))
            else:
                found.append((reads, partial(self._read, layer)))
                found.append((writes, partial(self._write, layer)))
        return found

    def _read_and_write(self, layer: int, value: Tensor) -> Tensor | None:
        self._read(layer, value)
        return self._write(layer, value)

    def _read(self, layer: int, value: Tensor) -> None:
        """Encode what a layer reads, and visit what comes of it."""
        host = self._ends[layer][0]
        self._x[layer] = self._whole(value, host)
        pre = self._dictionary.pre_activation_at(self._shared(self._x[layer]), layer)
        seen = self._visited("pre_activation", pre, host)
        before = self._dictionary.activated_at(pre, layer)
        latents = before if seen is None else self._dictionary.activated_at(seen, layer)
        new = self._visited("latents", latents, host)
        after = latents if new is None else new
        if after is not before or any(self._apart(reads) for reads, _ in self._ends[layer:]):
            self._before[layer], self._after[layer] = before, after
        else:
            self._before.pop(layer, None)
            self._after.pop(layer, None)

    def _write(self, layer: int, value: Tensor) -> Tensor | None:
        """What the model goes on with where a layer is written; None where that is what it had."""
        host, writes = self._ends[layer]
        change, x = self._change(layer), self._x.pop(layer)
        finished = partial(self._dictionary.finished_at, x=x, point=layer)
        if self._apart(host):
            written = self._written(layer)
            before = finished(self._summed(written))
            after = before if change is None else finished(self._summed(written + change))
            new = self._rebuilt(value, before, after, writes, host)
        elif change is None:
            return None
        else:
            total = self._dictionary.finished_change_at(self._summed(change), x, layer)
            new = self._on_value(value, total, writes)
        return new if new is None else self._but_bypassed(value, new)

    # -- sums over layers ------------------------------------------------------------------------

    def _written(self, to: int) -> Tensor:
        """What the latents so far write into a layer, as the dictionary has them."""
        parts = [
            self._dictionary.written_from(latents, layer, to)
            for layer, latents in self._before.items()
            if layer <= to
        ]
        parts += [self._came[key] for key in [("before", to)] if key in self._came]
        return torch.stack(parts).sum(0)

    def _change(self, to: int) -> Tensor | None:
        """By how much visits of the latents so far change that; None where none does."""
        parts = [
            self._dictionary.written_from(after - self._before[layer], layer, to)
            for layer, after in self._after.items()
            if layer <= to and after is not self._before[layer]
        ]
        parts += [self._came[key] for key in [("change", to)] if key in self._came]
        return torch.stack(parts).sum(0) if parts else None

    # -- between stages --------------------------------------------------------------------------

    def _travels(self, sources: list[int], targets: list[int]) -> list[tuple[str, int]]:
        """What latents of some layers leave for others."""
        words = ("pre_activation", "latents")
        points = [self._point_of(word, self._ends[n][0]) for n in sources for word in words]
        changed = any(point is not None and self._probed.may_change(point) for point in points)
        found = [("before", n) for n in targets if sources and self._apart(self._ends[n][0])]
        return found + [("change", n) for n in targets if changed]

    def arriving(self) -> int:
        """How many numbers of each token come from the stage before."""
        own = self._of_stages(self._stages.own, self._stages.own)
        here = self._travels(self._earlier(), [*own, *self._later()])
        return len(here) * self._dictionary.description.d_out

    def arrive(self, numbers: Tensor) -> None:
        """Take the sums of the stages before; a forward begins."""
        own = self._of_stages(self._stages.own, self._stages.own)
        keys = self._travels(self._earlier(), [*own, *self._later()])
        each = numbers.to(self.dtype).split(self._dictionary.description.d_out, -1) if keys else ()
        self._came = dict(zip(keys, each, strict=True))

    def depart(self, like: Tensor) -> Tensor:
        """The sums for the stages that follow."""
        parts = []
        for kind, to in self._travels(self._so_far(), self._later()):
            found = self._written(to) if kind == "before" else self._change(to)
            if found is None:
                d_out = self._dictionary.description.d_out
                found = like.new_zeros(*like.shape[:2], d_out, dtype=self.dtype)
            parts.append(found)
        return torch.cat(parts, -1) if parts else like.new_empty(*like.shape[:2], 0)


class CrosscoderVisits(SeveralPointsVisits[Crosscoder]):
    """A crosscoder in a pass."""

    @property
    def _last(self) -> int:
        """The number of the point that it reads last, where it has its latents."""
        return len(self._ends) - 1

    def visitors(self) -> list[tuple[str, Visitor]]:
        """What visits which point of the model."""
        own = self._stages.own
        return [
            (self._ends[n][0], self._read_and_write if n == self._last else partial(self._read, n))
            for n in self._of_stages(own, own)
        ]

    def _read(self, point: int, value: Tensor) -> None:
        self._x[point] = self._whole(value, self._ends[point][0])

    def _read_and_write(self, value: Tensor) -> Tensor | None:
        """Encode, at the last point, what is at all; the model goes on with what the visits make of the last one."""
        self._read(self._last, value)
        xs = [self._x[n] for n in range(self._last + 1)]
        pre = self._dictionary.pre_activation_of([self._shared(x) for x in xs])
        seen = self._visited("pre_activation", pre)
        before = self._dictionary.activated_of(pre)
        latents = before if seen is None else self._dictionary.activated_of(seen)
        ended = [end for n in range(self._last) for end in self._look(n, xs[n], latents[..., n, :])]
        own = latents[..., self._last, :]
        new = self._visited("latents", own)
        edited = seen is not None or new is not None
        found = self._write(value, before[..., self._last, :], own if new is None else new, edited)
        if ended and torch.is_grad_enabled():
            # Their visits are nodes of the graph, which a backward is to come by.
            tied: Tensor = Tied.apply(value if found is None else found, *ended)
            return tied
        return found

    def _look(self, point: int, x: Tensor, latents: Tensor) -> list[Tensor]:
        """Visit what is known of a point that the pass has left; what is visited leads nowhere."""
        host = self._ends[point][0]
        seen = [self._visited("latents", latents, host)]
        if self._apart_of(host):
            rebuilt = self._finished(latents, x, point)
            seen.append(self._visited("reconstruction", rebuilt, host))
            seen.append(self._visited("error", x - rebuilt, host))
        return [each for each in seen if each is not None]

    def _apart_of(self, host: str) -> bool:
        return any(self._point_of(word, host) for word in ("reconstruction", "error"))

    def _write(self, value: Tensor, before: Tensor, after: Tensor, edited: bool) -> Tensor | None:
        """What the model goes on with at the last point; None where that is what it had."""
        n, writes = self._last, self._ends[self._last][1]
        x = self._x[n]
        if self._apart():
            rebuilt = self._finished(before, x, n)
            other = self._finished(after, x, n) if edited else rebuilt
            new = self._rebuilt(value, rebuilt, other, writes)
        elif edited:
            written = self._summed(self._dictionary.written_at(after - before, n))
            change = self._dictionary.finished_change_at(written, x, n)
            new = self._on_value(value, change, writes)
        else:
            return None
        return new if new is None else self._but_bypassed(value, new)

    def _finished(self, latents: Tensor, x: Tensor, point: int) -> Tensor:
        written = self._summed(self._dictionary.written_at(latents, point))
        return self._dictionary.finished_at(written, x, point)

    # -- between stages --------------------------------------------------------------------------

    def _go_on(self, points: list[int], stage: int) -> list[int]:
        """Those that a stage still needs, or hands on."""
        return points if stage <= self._stages.each[self._last] else []

    def arriving(self) -> int:
        """How many numbers of each token come from the stage before."""
        return (
            len(self._go_on(self._earlier(), self._stages.own)) * self._dictionary.description.d_in
        )

    def arrive(self, numbers: Tensor) -> None:
        """Take what is at the points of the stages before."""
        if points := self._go_on(self._earlier(), self._stages.own):
            each = numbers.to(self.dtype).split(self._dictionary.description.d_in, -1)
            self._x |= dict(zip(points, each, strict=True))

    def depart(self, like: Tensor) -> Tensor:
        """What is at the points so far."""
        parts = [self._x[n] for n in self._go_on(self._so_far(), self._stages.own + 1)]
        return torch.cat(parts, -1) if parts else like.new_empty(*like.shape[:2], 0)
