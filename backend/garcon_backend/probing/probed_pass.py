"""A probe runs once, on the whole value, wherever the shards are.

At a probed point every rank of the tensor-parallel group does the same few collectives, whatever the
user's code does: gather the value to the leader, run the probes there on a value of the user's own, broadcast
to the others one flag, whether it changed, scatter it if so. On the autograd graph the visit is one
node, alike on all ranks: gather the gradient, vector-Jacobian product through the user's graph, scatter.
So a probe that raises, detaches or branches on anything cannot leave a rank waiting.

Invariants:

* User code never unwinds a forward that other ranks take part in (see ``calls``).
* The node in the model's graph puts out a detached value, never a view of its input: the model's own
  in-place operations would raise on a view.
* A replicated value's gradient is whole on every rank: one copy is taken, all get the same.
* Each call has its own random stream, and the process's is put back: probes never move the model's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from garcon_backend.dictionaries import Crosscoder, CrossLayer
from garcon_backend.distributed.collectives import Layout, Ranks
from garcon_backend.distributed.gather_group import GatherGroup
from garcon_backend.hook_sites.sites import Visitor
from garcon_backend.models.pipeline_parallel import stage_of
from garcon_backend.probing.autograd import Enter, Graft, Visit, nodes_behind
from garcon_backend.probing.called_modules import CalledModules
from garcon_backend.probing.dictionary_visits import DictionaryVisits, VisitedDictionary
from garcon_backend.probing.point_places import layout_of, site_here
from garcon_backend.probing.rank import Rank
from garcon_backend.probing.several_points_visits import (
    CrosscoderVisits,
    CrossLayerVisits,
    SeveralPointsVisits,
)
from garcon_backend.probing.user_calls import LoadedProbe, Point, UserCalls, own
from garcon_backend.process.user_code import UserFailure
from garcon_backend.save_contexts.copies import memory_of
from garcon_jupyter.points import MODULE_PREFIX, POINTS, Address
from garcon_jupyter.wire.requests import Batch, Splice

_VISITS: dict[str, type[VisitedDictionary[Any]]] = {
    CrossLayer.kind: CrossLayerVisits,
    Crosscoder.kind: CrosscoderVisits,
}
_ORDER = {spec.template: number for number, spec in enumerate(POINTS)}


class ProbedPass(UserCalls):
    """The probes of one request on this rank, for as long as it runs."""

    def __init__(
        self,
        rank: Rank,
        session: str,
        *,
        rows: int = 1,
        seed: int = 0,
        grad: bool = False,
        caching: bool = False,
        splices: Sequence[Splice] = (),
    ) -> None:
        super().__init__(rank, session, seed)
        self.grad, self.caching = grad, caching
        self.splices = {splice.dictionary: splice for splice in splices}
        self.sizes = rank.bound.catalog.sizes
        self.batch, self.copies = (0, 0), 1
        self.gather_group = GatherGroup(rank.mesh.tp, rank.mesh.replicas, rows)
        self.points: dict[str, Point] = {}
        self.visits: list[Visit] = []
        self.first_step = 0
        self.anchor = torch.zeros((), requires_grad=True, device=rank.mesh.device)
        self.called = CalledModules(rank.model, ())

    # -- what is visited ---------------------------------------------------------------------

    def add(self, probes: Iterable[LoadedProbe], wanted: Iterable[Address] = ()) -> None:
        """Visit the points of these probes, and those whose values a loss wants."""
        for probe in probes:
            point = self._point(probe.address)
            (point.backward if probe.spec.grad else point.forward).append(probe)
        for address in wanted:
            self._point(address).wanted = True

    def comes_from(self, batch: Batch) -> None:
        """Say where in the data of a run the tokens are from."""
        device = self.rank.mesh.device
        self.first_step, self.before = batch.step, batch.before
        if batch.documents is not None:
            self.documents = torch.as_tensor(batch.documents).to(device)
            self.offsets = torch.as_tensor(batch.offsets).to(device)

    def _point(self, address: Address) -> Point:
        if address.name not in self.points:
            point = Point(address, layout_of(self.rank, address))
            if address.dictionary:
                of = self.rank.dictionaries[address.dictionary].points
                point.left_behind = of.left_behind(address.name)
            self.points[address.name] = point
        return self.points[address.name]

    def may_change(self, point: Point) -> bool:
        """Whether visits of a point may put out another tensor, as every rank knows before the pass."""
        return self.grad or not all(probe.spec.read_only for probe in point.forward)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Hooks live exactly as long as this block."""
        removals = []
        modules = []
        dictionaries = list(self._dictionaries())
        stage = stage_of(self.rank.model)
        try:
            if stage is not None:
                stage.luggage = [d for d in dictionaries if isinstance(d, SeveralPointsVisits)]
            for address, visit in self._visitors(dictionaries):
                if (found := site_here(self.rank, address)) is None:
                    continue
                site, module = found
                removals.append(site.install(module, self, visit, address.expert))
                if address.name.startswith(MODULE_PREFIX):
                    modules.append(address.name)
            self.called = CalledModules(self.rank.model, modules)
            with self.called.watched():
                yield
        finally:
            if stage is not None:
                stage.luggage = ()
            for remove in reversed(removals):
                remove()

    def _visitors(
        self, dictionaries: Sequence[VisitedDictionary[Any]]
    ) -> list[tuple[Address, Visitor]]:
        """What visits each point of the model: its own probes, then the dictionaries that read or write it.

        Hooks of one module run in the order of the table: `out` before `contribution`.
        """
        visitors: dict[str, list[Visitor]] = {}
        for name, point in self.points.items():
            if not point.address.dictionary:
                visitors.setdefault(name, []).append(self._visitor(point))
        for dictionary in dictionaries:
            for name, visit in dictionary.visitors():
                visitors.setdefault(name, []).append(visit)
        catalog = self.rank.bound.catalog
        addresses = [
            self.points[name].address if name in self.points else catalog.point(name)
            for name in visitors
        ]
        addresses.sort(key=lambda address: _ORDER.get(address.template, 0))
        return [(address, _one_after_the_other(visitors[address.name])) for address in addresses]

    def _dictionaries(self) -> Iterator[VisitedDictionary[Any]]:
        """The dictionaries that this pass visits, or goes through, and of which this rank has points."""
        points: dict[str, dict[str, Point]] = {name: {} for name in self.splices}
        for name, point in self.points.items():
            if point.address.dictionary:
                points.setdefault(point.address.dictionary, {})[name] = point
        catalog = self.rank.bound.catalog
        for name, visited in points.items():
            loaded = self.rank.dictionaries[name]
            if loaded.here is not None:
                ends = {end for pair in loaded.points.ends for end in pair}
                lies = {end: layout_of(self.rank, catalog.point(end)) for end in ends}
                visits = _VISITS.get(loaded.here.kind, DictionaryVisits)
                yield visits(self, self.ranks, loaded, visited, self.splices.get(name), lies)

    def note_silent(self) -> None:
        """Say of probes whose module the pass did not call that it did not: now, and in recordings."""
        for name, why in self.called.silent().items():
            point = self.points[name]
            for probe in (*point.forward, *point.backward):
                new = self.rank.contexts.note_silent(self.session, name, probe.spec.name, why)
                if new and self.gather_group.leads:
                    with self.rank.output.captured():
                        print(f"[garcon] {why}", file=sys.stderr)

    def _visitor(self, point: Point) -> Visitor:
        return lambda value: self.visit(point, value)

    def begin(
        self,
        tokens: Tensor,
        mask: Tensor | None,
        positions: Tensor | None,
        step: int,
        shape: tuple[int, int],
    ) -> None:
        """Say what the coming forward reads: the whole batch, and the shape of this rank's rows.

        A row of the request may be read in several copies that lie beside each other, as beams are.
        """
        # Copies: probes are told of these, and may change what they are told.
        self.tokens, self.mask, self.positions = own(tokens), own(mask), own(positions)
        self.step, self.batch = self.first_step + step, shape
        self.copies = max(1, shape[0] // self.gather_group.local)
        first = self.rank.mesh.replica * self.gather_group.local
        last = min(first + self.gather_group.local, self.gather_group.rows)
        self.rows = slice(first * self.copies, last * self.copies)

    @property
    def ranks(self) -> Ranks:
        """The tensor-parallel group of this rank."""
        return self.rank.mesh.tp

    # -- forward -----------------------------------------------------------------------------

    def visit(self, point: Point, x: Tensor) -> Tensor | None:
        """Run the probes of a point on its value.

        Returns:
            What the model goes on with; None where it goes on with `x`.
        """
        x0 = x
        self.rank.interrupts.point = point.address.name
        on = self.grad and torch.is_grad_enabled() and x.is_floating_point()
        groups = groupby(point.forward, lambda probe: probe.spec.sharded)
        whole = [(sharded, list(probes)) for sharded, probes in groups]
        if on and (point.backward or point.wanted) and not (whole and not whole[-1][0]):
            whole.append((False, []))
        for sharded, probes in whole:
            last = probes is whole[-1][1]
            new = (
                self._visit_shard(point, probes, x)
                if sharded
                else self._visit_whole(point, probes, x, on, last)
            )
            x = x if new is None else new
        return None if x is x0 else x

    def _visit_shard(self, point: Point, probes: list[LoadedProbe], x: Tensor) -> Tensor | None:
        # Off the graph the model's tensor keeps its shape whatever becomes of the probe's.
        shown = x if torch.is_grad_enabled() else x.detach()
        if self.rank.mesh.degrees.dp > 1:  # without rows that only fill up
            rows = self._own_rows(point, len(x))
            shown = x[:rows] if x.layout is torch.strided else x.narrow_copy(0, 0, rows)
        value, changed = (
            self.ask(point, probes, shown, sharded=True) if len(shown) else (shown, False)
        )
        if not changed:
            return None
        return value if len(shown) == len(x) else torch.cat([value, x[len(shown) :]])

    def _own_rows(self, point: Point, local: int) -> int:
        """How many entries of the first dimension are of rows that only this replica holds."""
        if point.by_expert:
            return len(self._real_tokens())
        group = self.gather_group
        real = min(group.local, max(0, group.rows - self.rank.mesh.replica * group.local))
        return real * (local // group.local) if local % group.local == 0 else local

    def _visit_whole(
        self, point: Point, probes: list[LoadedProbe], x: Tensor, on: bool, last: bool
    ) -> Tensor | None:
        visit = Visit(point)
        visit.token_index = self.token_index
        new = None
        read_only = all(probe.spec.read_only for probe in probes)
        if probes or (on and point.wanted and last):
            whole = self._gather(point, x)
            if self.gather_group.leads:
                assert whole is not None
                own = read_only and not on and memory_of(whole) != memory_of(x)
                self._run_on_leader(visit, probes, whole, on, read_only, own)
            if not read_only:
                visit.changed = bool(self.gather_group.broadcast_integers([visit.changed])[0])
            if visit.changed:
                new = self._scatter(point, None if visit.y is None else visit.y.detach(), x)
        if not on:
            return new
        self.visits.append(visit)
        visit.point = point if last else replace(point, backward=[], wanted=False)
        grafted: Tensor = Graft.apply(x, self.anchor, new, visit, self)
        return grafted

    def _gather(self, point: Point, x: Tensor, grad: bool = False) -> Tensor | None:
        """The whole value of the whole batch, on the leader of the gather group."""
        with self.rank.interrupts.during("gathering"):
            return self._gathered(point, x, grad)

    def _gathered(self, point: Point, x: Tensor, grad: bool) -> Tensor | None:
        if not point.by_expert or self.rank.mesh.degrees.dp == 1:
            return self.gather_group.gather(x, point.layout, grad)
        real = self._real_tokens()
        self.whole_token_index = self.gather_group.gather(real, Layout(), ragged=True)
        return self.gather_group.gather(x[: len(real)], point.layout, grad, ragged=True)

    def _scatter(
        self, point: Point, whole: Tensor | None, like: Tensor, grad: bool = False
    ) -> Tensor:
        if not point.by_expert or self.rank.mesh.degrees.dp == 1:
            return self.gather_group.scatter(whole, like, point.layout, grad)
        real = len(self._real_tokens())
        piece = self.gather_group.scatter(whole, like[:real], point.layout, grad, ragged=True)
        return torch.cat([piece, like[real:]])

    def _real_tokens(self) -> Tensor:
        """Tokens routed to the visited expert, counted over the whole batch, without those of rows
        that only fill up a replica."""
        assert self.token_index is not None
        per_row = self.copies * self.batch[1]
        index = self.token_index + self.rank.mesh.replica * self.gather_group.local * per_row
        return index[index < self.gather_group.rows * per_row]

    def _run_on_leader(
        self,
        visit: Visit,
        probes: list[LoadedProbe],
        whole: Tensor,
        on: bool,
        read_only: bool,
        own: bool,
    ) -> None:
        with torch.set_grad_enabled(on):
            kept = not read_only or visit.point.wanted  # a loss is told what was there
            if (on and kept) or isinstance(whole, nn.Parameter):
                whole = whole.clone()  # what autograd saved, and weights, are not the user's
            value = Enter.apply(self.anchor, visit, [whole.detach()]) if on else whole
            visit.enter = value.grad_fn
            visit.y, visit.changed = self.ask(visit.point, probes, value, own=own)
            if self.failure:
                visit.y, visit.enter, visit.changed = (None if on else whole), None, False
            elif on:
                visit.reach = nodes_behind(visit.y) - {visit.enter}
                if visit.y.grad_fn is not None:
                    visit.y.retain_grad()

    # -- backward ----------------------------------------------------------------------------

    def value_of(self, address: Address) -> Tensor | None:
        """The value, on the graph, that a loss was promised; None where another rank has it."""
        named = (
            s.y for s in self.visits if s.point.wanted and s.point.address.name == address.name
        )
        return next((y for y in named if y is not None), None)

    def agree_on_joint(self) -> None:
        """After the loss's own backward on the leader: which visits got gradient from it."""
        far = set().union(*(visit.reach for visit in self.visits))
        flags = [
            s.enter is not None and (s.gradient_in is not None or s.enter in far)
            for s in self.visits
        ]
        for visit, flag in zip(
            self.visits, self.gather_group.broadcast_integers([int(f) for f in flags]), strict=True
        ):
            visit.joint = bool(flag)

    def backward_at(self, visit: Visit, gradient: Tensor) -> Tensor:
        """Gradient probes and the user's part of the graph; the same collectives on every rank."""
        point = visit.point
        probes = point.backward
        if not (visit.changed or visit.joint or probes):
            return gradient
        self.token_index = visit.token_index
        whole = self._gather(point, gradient, grad=True)
        edited = False
        inward = whole
        if self.gather_group.leads:
            assert whole is not None
            inward, edited = self._backward_on_leader(visit, whole)
        untouched = not (visit.changed or visit.joint)
        if untouched and all(p.spec.read_only for p in probes):
            return gradient
        if untouched and not self.gather_group.broadcast_integers([int(edited)])[0]:
            return gradient
        return self._scatter(point, inward, gradient, grad=True)

    def _backward_on_leader(self, visit: Visit, whole: Tensor) -> tuple[Tensor, bool]:
        edited = False
        inward = whole
        if visit.point.backward:
            # The whole gradient: the model's, and what the loss asked of this value directly.
            y = visit.y
            direct = y.grad if y is not None and y.grad_fn is not None else None
            total = whole.clone() if direct is None else whole + direct
            with torch.no_grad():
                asked, edited = self.ask(visit.point, visit.point.backward, total)
            whole = inward = asked.detach() if direct is None else asked.detach() - direct
        # Where no probe changed the value and the loss asked nothing of it, no graph lies between: the gradient goes on as it is.
        between = visit.changed or visit.joint
        if between and visit.enter is not None and visit.y is not None:
            try:
                if visit.y.requires_grad:
                    torch.autograd.backward(visit.y, whole, retain_graph=True)
            except Exception as error:  # noqa: BLE001 - the user's graph
                self.failure = self.failure or UserFailure(
                    error, f"backward of {visit.point.address.name}"
                )
            had = visit.gradient_in
            inward = torch.zeros_like(whole) if had is None else had
        return inward, edited

    def close(self) -> None:
        """Let go of everything: autograd would keep visits alive with the graph."""
        self.visits.clear()
        self.points.clear()


def _one_after_the_other(visitors: Sequence[Visitor]) -> Visitor:
    """A visit by several: each sees what the one before left."""
    if len(visitors) == 1:
        return visitors[0]

    def visit(value: Tensor) -> Tensor | None:
        now = value
        for each in visitors:
            new = each(now)
            now = now if new is None else new
        return None if now is value else now

    return visit
