"""Calling user code: in its own random stream and save context, with its errors kept.

User code never unwinds a forward that other ranks take part in: its error is kept, the rest of the pass is
the identity, and the request fails afterwards. A single rank stops at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from garcon_backend.distributed.collectives import Layout
from garcon_backend.probing.rank import Rank
from garcon_backend.probing.results import ALONE, plain, unshared
from garcon_backend.process import memory
from garcon_backend.process.interrupts import Cancelled
from garcon_backend.process.randomness import generator, seed_of
from garcon_backend.process.user_code import UserFailure
from garcon_backend.save_contexts.copies import memory_of
from garcon_backend.save_contexts.merging import Sharded
from garcon_backend.save_contexts.save_context import (
    LentToProbe,
    SourceRecording,
    release_aliases,
    took,
    uses,
)
from garcon_jupyter.errors import PointUnavailable, WrongValue
from garcon_jupyter.points import Address
from garcon_jupyter.wire.requests import ProbeSpec

LEAVE_ALONE = "Return a tensor of the point's own shape, dtype and device, or None to leave it."


READ_IT = "Read it, and patch that point in another pass: rmodel.probe_points[…].probe(fn, source=recording)."


def left_behind(point: Point) -> str:
    """What is wrong with an edit of a point whose value can be read alone."""
    return f"{point.address.name} cannot be changed: {point.left_behind}."


class PassFailed(Exception):
    """Unwinds the forward of a single rank after user code failed."""


@dataclass
class LoadedProbe:
    """A probe ready to run on this rank."""

    spec: ProbeSpec
    address: Address
    function: Callable[..., Any]
    params: dict[str, Tensor] = field(default_factory=dict)
    source: SourceRecording | None = None


@dataclass
class Point:
    """A point that this request visits."""

    address: Address
    layout: Layout
    forward: list[LoadedProbe] = field(default_factory=list)
    backward: list[LoadedProbe] = field(default_factory=list)
    wanted: bool = False
    """Whether the loss is given this point's value."""
    left_behind: str = ""
    """Why its value can be read alone; "" where the model goes on with what a visit makes of it."""

    @property
    def by_expert(self) -> bool:
        """Whether its rows are the tokens routed to one expert, not those of the batch."""
        return self.address.expert is not None


class UserCalls:
    """The user code of one request on this rank, and what it is told of where it runs."""

    def __init__(self, rank: Rank, session: str, seed: int) -> None:
        self.rank, self.session, self.seed = rank, session, seed
        self.token_index: Tensor | None = None
        self.whole_token_index: Tensor | None = None
        self.step = 0
        self.tokens: Tensor | None = None
        self.mask: Tensor | None = None
        self.positions: Tensor | None = None
        self.special: Tensor | None = None
        self.rows = slice(None)
        self.documents: Tensor | None = None
        self.offsets: Tensor | None = None
        self.before: int | None = None
        self.failure: UserFailure | None = None
        self.edits: list[str] = []  # "function at point", of those that changed a value
        self._calls: dict[str, int] = {}

    def ask(
        self,
        point: Point,
        probes: list[LoadedProbe],
        value: Tensor,
        sharded: bool = False,
        own: bool = False,
    ) -> tuple[Tensor, bool]:
        """Run probes in order, each on the result of the one before; (value, whether changed).

        Args:
            sharded: the value is this rank's part.
            own: nobody else has the value's memory, which may be kept.
        """
        start, changed = value, False
        users = uses(value)
        for probe in probes:
            if self.failure or self.rank.interrupts.stop.skipping:
                return start, False
            version, had = value._version, _kind(value)
            last = probe is probes[-1] and probe.spec.read_only
            given = value if own and last and uses(value) == users else None
            result = self._call(point, probe, value, sharded, had, given)
            if self.failure:
                return start, False
            result = value if result is None else result
            edited = result is not value or value._version != version
            if problem := _wrong(result, had):
                self._fail(point, probe, WrongValue(problem, LEAVE_ALONE), had)
                return start, False
            if edited and point.left_behind and not probe.spec.grad:
                self._fail(point, probe, PointUnavailable(left_behind(point), READ_IT), had)
                return start, False
            if edited and probe.spec.read_only:
                remedy = "Leave out read_only=True, or do not change the value."
                self._fail(point, probe, WrongValue("A read-only probe edited.", remedy), had)
                return start, False
            if edited:
                self._note_edit(probe)
            value, changed = result, changed or edited
        return value, changed

    def _note_edit(self, probe: LoadedProbe) -> None:
        spec = probe.spec
        edit = f"{spec.code.name} at {spec.point}{' (gradient)' if spec.grad else ''}"
        if edit not in self.edits:
            self.edits.append(edit)

    def _call(
        self,
        point: Point,
        probe: LoadedProbe,
        value: Tensor,
        sharded: bool,
        had: dict[str, Any],
        given: Tensor | None,
    ) -> Any:
        """Call user code: its own random stream, its own save context, its errors kept."""
        name = point.address.name + (".grad" if probe.spec.grad else "")
        number = self._calls[name] = self._calls.get(name, -1) + 1
        seed = seed_of(self.seed, name, number)
        try:
            with self.rank.interrupts.held():
                context = self.rank.contexts.open(
                    self.session, point.address.name, probe.spec.name, self.rank.adapters.current
                )
            here = self._here(point, value, seed, sharded)
            of = self._sharded(point, probe, value) if sharded else None
            told = {"params": probe.params, "source": probe.source, "shard": here.shard}
            users, version = uses(value), value._version
            with (
                LentToProbe(context, of, given, here=here, **told),
                self.rank.user_code(seed),
            ):
                result = plain(probe.function(context, value))
            new = result if isinstance(result, Tensor) and result is not value else None
            if _is_shared(new) or uses(value) > users + took(context):
                edited = value._version != version
                release_aliases(context, value, *([] if new is None else [new]), edited=edited)
            del new
            if not (torch.is_grad_enabled() or probe.spec.read_only):
                result = unshared(result, value, users)
            return result
        except Cancelled:
            if self.rank.mesh.world == 1:
                raise
            self.failure = UserFailure(Cancelled(), "")
        except BaseException as error:  # noqa: BLE001 - user code may raise anything
            self._fail(point, probe, error, had)
        return None

    def _here(self, point: Point, value: Tensor, seed: int, sharded: bool) -> SimpleNamespace:
        layout = point.layout
        part = self.rank.mesh.tp_rank // layout.dup if layout.chunks > 1 else 0
        size = value.shape[layout.dim] if layout.chunks > 1 else None
        shard = SimpleNamespace(
            replica=self.rank.mesh.replica,
            index=part,
            count=layout.chunks,
            dim=layout.dim if layout.chunks > 1 else None,
            start=part * size if size else 0,
            stop=(part + 1) * size if size else None,
            counts=self._counts(layout),
        )
        return SimpleNamespace(
            point=point.address.name,
            layer=point.address.layer,
            expert=point.address.expert,
            adapter=self.rank.adapters.current,
            tokens=self.tokens,
            mask=self.mask,
            positions=self.positions,
            special=self.special,
            step=self.step,
            token_index=own(
                self.token_index
                if sharded or self.rank.mesh.degrees.dp == 1
                else self.whole_token_index
            ),
            rows=self.rows if sharded else slice(None),
            document=own(self.documents),
            offset=own(self.offsets),
            before=self.before,
            generator=generator(value.device, seed),
            shard=shard if sharded else None,
        )

    def _fail(
        self, point: Point, probe: LoadedProbe, error: BaseException, had: dict[str, Any]
    ) -> None:
        error = memory.typed(error, self.rank.mesh.device)
        layout = point.layout
        sharding = (
            f"one of {layout.chunks} shards"
            if probe.spec.sharded and layout.chunks > 1
            else "whole"
        )
        dtype = str(had["dtype"]).removeprefix("torch.")
        side = "the gradient at " if probe.spec.grad else ""
        where = f"{side}{point.address.name} {had['shape']} {dtype}, {sharding}"
        self.failure = self.failure or UserFailure(error, where)
        if self.rank.mesh.world == 1:
            raise PassFailed

    def _sharded(self, point: Point, probe: LoadedProbe, value: Tensor) -> Sharded:
        layout = point.layout
        return Sharded(
            probe.spec.merge,
            layout.dim - value.dim() if layout.dim >= 0 else layout.dim,
            value.dim(),
            self.rank.mesh.replica,
            self._counts(layout),
        )

    def _counts(self, layout: Layout) -> bool:
        """Whether this rank's part counts: copies of a replicated value count once."""
        copies = layout.dup if layout.chunks > 1 else self.rank.mesh.tp.size
        return self.rank.mesh.tp_rank % copies == 0


def _is_shared(new: Tensor | None) -> bool:
    """Whether user code may have kept what it returned, beside the two names of the caller and this one."""
    return new is not None and memory_of(new) is not None and uses(new) > ALONE + 2


def own(told: Tensor | None) -> Tensor | None:
    """A copy for user code, which may change what it is told."""
    return None if told is None else told.clone()


def _kind(value: Tensor) -> dict[str, Any]:
    """What must stay as it is when a value is replaced, or changed in place."""
    return {
        "shape": list(value.shape),
        "dtype": value.dtype,
        "device": value.device,
        "layout": value.layout,
    }


def _wrong(result: Any, had: dict[str, Any]) -> str:
    """What is wrong with a probe's result, or nothing."""
    if not isinstance(result, Tensor):
        return f"A probe returned a {type(result).__name__}, not a tensor."
    for what, has in _kind(result).items():
        if has != had[what]:
            return f"A probe returned a tensor of {what} {has}; the point's is {had[what]}."
    return ""
