"""What one rank does with a request: prepare it, run it, answer.

``prepare`` unpickles and resolves and may fail at no cost; ``run`` drives the model. Every rank does
both, in unison; the parts that the ranks answer are put together by :data:`COMBINE` on rank 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from garcon_backend.distributed.collectives import Layout
from garcon_backend.distributed.mesh import Mesh
from garcon_backend.distributed.stage_exchange import over_stages
from garcon_backend.execution.admission import Admission
from garcon_backend.execution.generation import generate
from garcon_backend.execution.parameters import Parameters
from garcon_backend.execution.passes import Passes
from garcon_backend.execution.recorder_admission import Room
from garcon_backend.execution.row_chunks import Piece, cut
from garcon_backend.execution.stateless import is_stateless
from garcon_backend.models.family import BoundFamily
from garcon_backend.models.sharding import stage_layers
from garcon_backend.probing.user_calls import Probe, UserFailure
from garcon_backend.process import memory, state
from garcon_backend.process.interrupts import Cancelled, Interrupts
from garcon_backend.process.output import Output
from garcon_backend.save_contexts import checkpoints, merging
from garcon_backend.save_contexts.contexts import Contexts, Source, describe, there
from garcon_jupyter.errors import BadRequest, MissingModule, NoRecording
from garcon_jupyter.points import Address, PointSpec
from garcon_jupyter.user_code import moved, source_lines
from garcon_jupyter.wire import requests as wire
from garcon_jupyter.wire.requests import Code, ProbeSpec

REMEMBERED = 256
"""Functions without state that are kept from request to request."""

Index = dict[tuple[str, str | None], dict[str, merging.Part]]
"""One rank's table of contents of a snapshot: for each (point, name), what its attributes are."""


class Executor:
    """Runs requests on this rank."""

    def __init__(
        self,
        mesh: Mesh,
        model: nn.Module,
        bound: BoundFamily,
        layouts: dict[str, Layout],
        interrupts: Interrupts,
        output: Output,
        tokenizer: Any | None = None,
    ) -> None:
        self.mesh, self.model, self.bound = mesh, model, bound
        self.interrupts, self.output = interrupts, output
        self.contexts = Contexts()
        self._loaded: dict[str, Callable[..., Any]] = {}
        self._stateless: dict[str, Callable[..., Any]] = {}
        self._addresses: dict[str, Address] = {}
        self.parameters = Parameters(mesh, bound)
        layers = stage_layers(model, mesh)
        self.admission = Admission(mesh, model, len(layers), bound.catalog.sizes)
        self.room = Room(mesh, bound, layouts)
        self.passes = Passes(
            mesh, model, bound, layouts, self.contexts, interrupts, output, tokenizer
        )

    # -- prepare -----------------------------------------------------------------------------

    def prepare(self, request: wire.Request) -> Callable[[], Any]:
        """Check a request and make it ready: what is returned runs it.

        Raises:
            GarconError: the request is wrong; nothing has happened.
        """
        self._loaded = dict(self._stateless)
        self.contexts.release(request.session, request.released)
        run = getattr(self, f"_prepare_{type(request).__name__.lower()}")(request)
        return state.unchanged(lambda: self._within_limits(run))

    def _within_limits(self, run: Callable[[], Any]) -> Any:
        """Run a request; where it was too much, it fails, and what it saved is taken back.

        Raises:
            DoesNotFit: more was saved than this rank keeps.
        """
        self.contexts.keeping.begin()
        memory.adjust()
        try:
            value = run()
            if self.contexts.keeping.grown:
                self.contexts.check_room()
        except BaseException as error:
            if isinstance(memory.typed(getattr(error, "error", error)), MemoryError):
                with self.interrupts.held():
                    self.contexts.keeping.take_back()
                memory.recover()
            raise
        return value

    def load(self, code: Code) -> Callable[..., Any]:
        """The function of shipped code; what it captured is as it was shipped, in every request anew.

        Raises:
            MissingModule: it needs a module that this server cannot import.
        """
        try:
            if code.digest not in self._loaded:
                with self.interrupts.user_code("preparing"):
                    function = self._loaded[code.digest] = moved.loads(code.payload)
                if is_stateless(function):
                    self._remember(code.digest, function)
            return self._loaded[code.digest]
        except MissingModule:
            raise
        except ImportError as error:
            module = getattr(error, "name", None) or str(error)
            raise MissingModule(
                f"{code.name} needs the module {module!r}, which the server cannot import.",
                "Install it where the server runs, or garcon.ship(module) to send it along.",
            ) from None
        except Exception as error:
            raise BadRequest(
                f"{code.name} cannot be unpickled on the server: {type(error).__name__}: {error}.",
                "Define it in the notebook, or garcon.ship() the module that defines it.",
            ) from error

    def _remember(self, digest: str, function: Callable[..., Any]) -> None:
        """Keep a function that is the same in every request."""
        if len(self._stateless) >= REMEMBERED:
            del self._stateless[next(iter(self._stateless))]
        self._stateless[digest] = function

    def merge_rule(self, code: Code) -> Callable[[list[Any]], Any]:
        """A rule of the user's own, as a function of the list of parts."""
        rule = self.load(code)
        return lambda parts: self.passes.user(0, rule, f"the merge rule {code.name}", parts)

    def _probes(self, specs: Sequence[ProbeSpec]) -> list[Probe]:
        return [self._probe(spec) for spec in specs]

    def _probe(self, spec: ProbeSpec) -> Probe:
        address = self._addresses.get(spec.point)
        if address is None:
            address = self._addresses[spec.point] = self.bound.catalog.point(spec.point)
        if spec.grad and isinstance(address.spec, PointSpec) and not address.spec.differentiable:
            raise BadRequest(f"{spec.point} has no gradient: it holds indices.", "Leave out grad.")
        for name in spec.params:
            self.bound.catalog.parameter(name)
        return Probe(spec, address, self.load(spec.code))

    def supply(self, session: str, probes: Sequence[Probe]) -> None:
        """Give probes the parameters and recordings that they asked for, from whichever stage.

        Collective, so it is done when all ranks are known to go on, not while they prepare.
        """
        for name in sorted({name for probe in probes for name in probe.spec.params}):
            value = over_stages(self.mesh, self.parameters.copy(name))
            for probe in probes:
                if name in probe.spec.params and value is not None:
                    probe.params[name] = value
        refs = {probe.spec.source for probe in probes if probe.spec.source is not None}
        for ref in sorted(refs, key=lambda ref: (ref.snapshot, ref.point, ref.name or "")):
            contents = over_stages(self.mesh, self.contexts.contents(session, ref))
            # All ranks stop, or none: one that went on alone would wait for ever.
            if self.mesh.everyone.any(self.mesh.runs_probes and contents is None):
                raise NoRecording(
                    f"Nothing is recorded at {ref.point} in that snapshot.",
                    "Take recordings() again.",
                )
            in_parts = contents is not None and self.mesh.world > 1 and bool(contents.parts)
            if self.mesh.everyone.any(in_parts):
                raise BadRequest(
                    f"The recording of {ref.point} was saved in shards, and a source must be whole.",
                    "Save it by a probe without sharded=True.",
                )
            for probe in probes:
                if probe.spec.source == ref and contents is not None:
                    probe.source = Source(contents.values)

    def _admitted(
        self,
        request: wire.Forward | wire.Backward | wire.Generate,
        pieces: Sequence[Piece] = (),
    ) -> list[Probe]:
        """The probes of a pass that fits, whole or in pieces.

        Raises:
            DoesNotFit: the pass does not, or what its recorders will keep.
        """
        self.admission.check(request, pieces)
        probes = self._probes(request.probes)
        with self.interrupts.user_code("preparing"):
            self.room.check(request.session, probes, self.contexts)
        return probes

    def _points(self, names: Sequence[str]) -> list[Address]:
        return [self.bound.catalog.point(name) for name in names]

    # -- the requests ------------------------------------------------------------------------

    def _prepare_forward(self, request: wire.Forward) -> Callable[[], Any]:
        batch = self.passes.batch(request.batch)
        most = request.batch_tokens
        pieces = () if most is None else cut(request.batch, most if isinstance(most, int) else 1)
        probes = self._admitted(request, pieces)
        logits = request.logits
        reduce = self.load(logits) if isinstance(logits, Code) else None

        def run() -> Any:
            self.supply(request.session, probes)
            if most is None:
                return self.passes.forward(request, batch, probes, reduce)
            chosen = pieces if isinstance(most, int) else self._largest_pieces(request)
            return self.passes.forward_in_pieces(request, chosen, probes, reduce)

        return run

    def _largest_pieces(self, request: wire.Forward) -> Sequence[Piece]:
        """As few pieces as fit on every rank, which all ranks find out together; a row each at least."""
        rows, length = torch.as_tensor(request.batch.ids).shape
        most = rows * length
        while True:
            pieces = cut(request.batch, most)
            fits = len(pieces) == rows or self.admission.fits(request, pieces)
            if not self.mesh.everyone.any(not fits):
                return pieces
            most //= 2

    def _prepare_backward(self, request: wire.Backward) -> Callable[[], Any]:
        if request.loss is None:
            raise BadRequest("backward needs a loss function.", "loss_fn(logits) returns a scalar.")
        batch = self.passes.batch(request.batch)
        probes = self._admitted(request)
        loss = self.load(request.loss)
        values = self._points(request.values)
        for name in request.parameters:
            self.bound.catalog.parameter(name)

        def run() -> Any:
            self.supply(request.session, probes)
            return self.passes.backward(request, batch, probes, loss, values, self.parameters)

        return run

    def _prepare_generate(self, request: wire.Generate) -> Callable[[], Any]:
        batch = self.passes.batch(request.batch)
        probes = self._admitted(request)

        def run() -> Any:
            self.supply(request.session, probes)
            return generate(self.passes, request, batch, probes)

        return run

    def _prepare_snapshot(self, request: wire.Snapshot) -> Callable[[], Any]:
        def run() -> tuple[Index, dict[tuple[str, str | None], str]]:
            contents = self.contexts.snapshot(request.session, request.number)
            index = {
                key: {
                    name: merging.Part(
                        replace(
                            describe(value),
                            origin=self.contexts.origin(request.session, key, name, value),
                        ),
                        saved.parts.get(name),
                    )
                    for name, value in saved.values.items()
                }
                for key, saved in contents.items()
            }
            return index, self.contexts.silent(request.session)

        return run

    def _prepare_fetch(self, request: wire.Fetch) -> Callable[[], Any]:
        def run() -> dict[int, merging.Part]:
            found = {}
            for number, (ref, attribute, steps) in enumerate(request.wanted):
                contents = self.contexts.contents(request.session, ref)
                if contents is None or attribute not in contents.values:
                    continue
                of, value = contents.parts.get(attribute), contents.values[attribute]
                # Steps on a part would mean something else than on the whole.
                what = f"{ref.point}.{attribute}"
                if of is not None and not of.counts:  # another rank's is the same
                    found[number] = merging.Part(None, of)
                    continue
                value = there(value, what)
                value = merging.cut(value, steps, what) if of is None else value
                found[number] = merging.Part(merging.as_dtype(value, request.dtype), of)
            return found

        return run

    def _prepare_clear(self, request: wire.Clear) -> Callable[[], Any]:
        return lambda: self.contexts.clear(request.session, request.points, request.name)

    def _prepare_checkpoint(self, request: wire.Checkpoint) -> Callable[[], Any]:
        return lambda: checkpoints.write(self.contexts, self.mesh.rank, request)

    def _prepare_restore(self, request: wire.Restore) -> Callable[[], Any]:
        contents = checkpoints.read(self.mesh.rank, request)
        return lambda: self.contexts.install(request.session, contents)

    def _prepare_drop(self, request: wire.Drop) -> Callable[[], Any]:
        return lambda: self.contexts.drop(request.session)

    def _prepare_getparameter(self, request: wire.GetParameter) -> Callable[[], Any]:
        self.bound.catalog.parameter(request.name)
        return lambda: self.parameters.cut(request.name, request.index)

    def _prepare_runonranks(self, request: wire.RunOnRanks) -> Callable[[], Any]:
        try:
            code = compile(request.source, request.filename, "exec")
            source_lines.remember(request.filename, 1, request.source.splitlines())
        except (SyntaxError, ValueError) as error:
            raise BadRequest(f"The code does not compile: {error}.", "Correct it.") from None

        def run() -> list[int]:
            scope = {
                "model": self.model,
                "rank": self.mesh.rank,
                "world_size": self.mesh.world,
                "mesh": self.mesh,
                "torch": torch,
                "__name__": "__garcon__",
            }
            try:
                with self.output.captured(), self.interrupts.user_code():
                    exec(code, scope)
            except Cancelled:
                raise
            except BaseException as error:  # noqa: BLE001 - user code may raise anything
                error = memory.typed(error, self.mesh.device)
                raise UserFailure(error, f"rank {self.mesh.rank} of {self.mesh.world}") from None
            return [self.mesh.rank]

        return run


def _first(parts: Sequence[Any], request: wire.Request, executor: Executor) -> Any:
    return next((part for part in parts if part is not None), None)


def _loss_and_gradients(parts: Sequence[Any], request: wire.Request, executor: Executor) -> Any:
    loss = next((loss for loss, _ in parts if loss is not None), None)
    gradients: dict[str, Any] = {}
    for _, found in parts:
        gradients |= found
    return loss, gradients


def _one_index(
    parts: Sequence[Any], request: wire.Request, executor: Executor
) -> wire.SnapshotIndex:
    assert isinstance(request, wire.Snapshot)
    found: dict[Any, dict[str, list[merging.Part]]] = {}
    silent: dict[Any, str] = {}
    for part, of_part in parts:
        silent |= of_part
        for key, attributes in part.items():
            for name, info in attributes.items():
                found.setdefault(key, {}).setdefault(name, []).append(info)
    table = {
        key: {name: merging.described(infos) for name, infos in attributes.items()}
        for key, attributes in found.items()
    }
    return wire.SnapshotIndex(request.number, table, silent)


def _all_fetched(
    parts: Sequence[dict[int, merging.Part]], request: wire.Request, executor: Executor
) -> list[Any]:
    assert isinstance(request, wire.Fetch)
    values = []
    for number, (ref, attribute, steps) in enumerate(request.wanted):
        what = f"{ref.point}.{attribute}"
        found = [part[number] for part in parts if number in part]
        if not found:
            raise NoRecording(
                f"Nothing is recorded as {what}.", "rmodel.recordings() lists what is."
            )
        value = merging.merged(found, what, executor.merge_rule)
        values.append(value if found[0].of is None else merging.cut(value, steps, what))
    return values


def _all(parts: Sequence[Any], request: wire.Request, executor: Executor) -> list[Any]:
    return [item for part in parts for item in part]


COMBINE: dict[type[wire.Request], Callable[[Sequence[Any], wire.Request, Executor], Any]] = {
    wire.Forward: _first,
    wire.Backward: _loss_and_gradients,
    wire.Generate: _first,
    wire.Snapshot: _one_index,
    wire.Fetch: _all_fetched,
    wire.Clear: _first,
    wire.Drop: _first,
    wire.Checkpoint: _first,
    wire.Restore: _first,
    wire.GetParameter: _first,
    wire.RunOnRanks: _all,
}
"""How the answers of all ranks become one."""

__all__ = ["COMBINE", "Executor", "UserFailure"]
