"""How every rank runs a request in unison.

Rank 0 sends each request to the workers over ZMQ (an idle rank never waits inside a collective: that
would time out and block signals), in two steps. PREPARE: every rank unpickles and resolves, and says
READY or why not; a failure here costs nothing. GO: every rank runs, and says DONE with its part of the
answer, or ERROR. The parts become one answer on rank 0.

What users' code raises is agreed upon, so that all ranks end the pass together. A rank that fails alone, where
memory ended in the middle of a layer for instance, would leave the others waiting in a collective: so it *leaves*
its groups, by which theirs end too, and when all have answered they join anew. The model stays in memory.

By which sockets, and how they are protected, is the business of :mod:`garcon_backend.lockstep.command_sockets`.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from garcon_backend.execution.executor import COMBINE, Executor
from garcon_backend.execution.failing_module import HAPPENED
from garcon_backend.lockstep.answers import Lent, frames
from garcon_backend.lockstep.command_sockets import Link
from garcon_backend.lockstep.recorded import Recorded
from garcon_backend.lockstep.watchdog import Watch, answer_watch
from garcon_backend.probing.user_calls import PassFailed, UserFailure
from garcon_backend.process import memory
from garcon_backend.process.interrupts import Cancelled
from garcon_backend.process.output import log
from garcon_backend.save_contexts import merging
from garcon_backend.save_contexts.contexts import Key
from garcon_jupyter.errors import CannotTravel, GarconError, Interrupted
from garcon_jupyter.points import Catalog
from garcon_jupyter.wire import codec
from garcon_jupyter.wire.failures import describe, with_edits_of
from garcon_jupyter.wire.requests import Request


@dataclass
class Outcome:
    """One rank's answer: a part of the value, or what went wrong."""

    value: Any = None
    failure: dict[str, Any] | None = None
    alone: bool = False
    """Whether it failed in the middle of a pass, where others may wait for it."""
    follows: bool = False
    """Whether it failed only because another did."""
    news: Mapping[Key, bool] = field(default_factory=dict)
    """The contexts that were touched, and whether something is in them on that rank."""


class RequestFailed(Exception):
    """A request failed; `failure` is what the client is told."""

    def __init__(self, failure: dict[str, Any]) -> None:
        super().__init__(failure.get("problem") or failure.get("text"))
        self.failure = failure


def _failure(error: BaseException) -> dict[str, Any]:
    if isinstance(error, UserFailure):
        return describe(error.error, error.where)
    if isinstance(error, (Cancelled, KeyboardInterrupt)):
        return describe(Interrupted("The request was interrupted.", "Nothing else was lost."))
    happened = getattr(error, HAPPENED, None)
    error = memory.typed(error)
    if not isinstance(
        error, (GarconError, PassFailed)
    ):  # the latter follows from another's failure
        with contextlib.suppress(OSError):  # a full disk
            traceback.print_exception(error)  # perhaps a fault of ours: into the log too
    return describe(error, happened=happened)


def attempt(executor: Executor, request: Request) -> tuple[Callable[[], Any] | None, Outcome]:
    """Prepare a request; what runs it, or why it cannot."""
    try:
        return executor.prepare(request), Outcome()
    except BaseException as error:  # noqa: BLE001 - every failure is an answer
        return None, Outcome(failure=_failure(error))


def perform(executor: Executor, run: Callable[[], Any]) -> Outcome:
    """Run a prepared request; nothing escapes. A rank that failed alone has left its groups then."""
    try:
        outcome = _performed(executor, run)
    except Cancelled as error:  # it came again while the first was dealt with
        executor.interrupts.shut()
        return Outcome(failure=_failure(error))
    outcome.news = executor.contexts.news()
    if outcome.alone and executor.mesh.may_rejoin:  # by now no traceback knows the groups
        executor.mesh.leave()
    return outcome


def _performed(executor: Executor, run: Callable[[], Any]) -> Outcome:
    executor.output.begin()
    try:
        with executor.interrupts.during("running"), executor.interrupts.the_pass():
            return Outcome(run())
    except BaseException as error:  # noqa: BLE001 - every failure is an answer
        executor.interrupts.shut()
        agreed = isinstance(
            error, (GarconError, UserFailure, PassFailed, Cancelled, KeyboardInterrupt)
        )
        follows = isinstance(error, PassFailed) or _cut_off(error)
        return Outcome(failure=_failure(error), alone=not agreed, follows=follows)
    finally:
        executor.interrupts.shut()
        executor.output.end()


def _cut_off(error: BaseException) -> bool:
    """Whether an error says that a rank for which this one waited has gone."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _GONE)


_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""Gloo's words for it."""


class Lockstep:
    """Rank 0's side: runs requests on all ranks.

    Attributes:
        lent: the files in shared memory that the ranks wrote for the answer of the last request.
        recorded: what is recorded where, as of the last request.
    """

    def __init__(self, executor: Executor, workers: int, link: Link) -> None:
        self.executor = executor
        self.workers = workers
        self._link = link
        self._number = executor.contexts.finished
        self.lent = Lent()
        self.recorded = Recorded()
        self._emit: Callable[[int, str, str], None] = lambda rank, stream, text: None
        self._names: list[bytes] = []
        self._watch: Watch | None = None

    def introductions(self) -> list[Any]:
        """What every worker says of itself, by rank; waits for them. What was recorded before the ranks were started
        anew is known then."""
        heard: dict[bytes, Any] = {}
        while len(heard) < self.workers:
            name, payload, *buffers = self._link.commands.recv_multipart()
            heard[name] = codec.loads(payload, buffers)
        self._names = sorted(heard, key=int)
        told = [heard[name] for name in self._names]
        self.recorded.learn([self.executor.contexts.news(), *(news for _, _, news in told)])
        return [(facts, catalog) for facts, catalog, _ in told]

    def watched(self, stages: Sequence[int], restart: Callable[[str], None], pulse: Path) -> None:
        """From now on the ranks, of these stages, are watched; see :class:`Watch`."""
        self._watch = Watch(self.executor, stages, self._link, restart, pulse)

    def share_catalog(self, catalog: Catalog) -> None:
        """Let every rank resolve names by the catalog of all stages."""
        self.executor.bound.catalog = catalog
        self._tell([b"catalog", *_encoded(catalog)])

    def on_output(self, emit: Callable[[int, str, str], None]) -> None:
        """Where the workers' prints go: (rank, stream, text)."""
        self._emit = emit

    def cancel(self, request_id: str) -> None:
        """Stop a request on every rank; from any thread."""
        assert self._watch is not None
        self._watch.cancel(request_id)

    def is_cancelled(self, request_id: str) -> bool:
        """Whether a request that has yet to run is to stop; from any thread."""
        assert self._watch is not None
        return self._watch.is_cancelled(request_id)

    def run(self, request_id: str, request: Request) -> Any:
        """Run a request on all ranks.

        Raises:
            RequestFailed: on any rank; the others have finished and are right.
        """
        assert self._watch is not None
        with self.executor.interrupts.running(request_id):
            # Before anybody was told: from now on the ranks stop together, or not at all.
            self.executor.interrupts.check()
            self._watch.begin(request_id)
            self.executor.contexts.begin()
            try:
                return self._run(request_id, request)
            finally:
                self._watch.end()
                self.executor.contexts.end(self._number)  # by now all ranks have put it down

    def _run(self, request_id: str, request: Request) -> Any:
        self._number += 1
        self.lent.end()
        if self.workers:
            number = str(self._number).encode()
            self._tell([b"prepare", request_id.encode(), number, *_encoded(request)])
        prepared, outcome = attempt(self.executor, request)
        outcomes = [outcome, *self._hear()]
        if any(o.failure for o in outcomes) or prepared is None:
            self._tell([b"skip"])
            raise RequestFailed(_worst(outcomes))
        self._tell([b"go"])
        outcome = perform(self.executor, prepared)
        self.executor.contexts.keep(self._number, _title(self._number, request))
        outcomes = [outcome, *self._hear()]
        self.recorded.learn(o.news for o in outcomes)
        if any(o.alone for o in outcomes):
            self._join_anew()
        if any(o.failure for o in outcomes):
            raise RequestFailed(_worst(outcomes))
        try:
            return COMBINE[type(request)]([o.value for o in outcomes], request, self.executor)
        except BaseException as error:  # a merge rule of the user's may raise anything
            raise RequestFailed(_failure(error)) from error

    def _join_anew(self) -> None:
        """Some ranks have left their groups: so do the others, and all join anew."""
        assert self._watch is not None
        mesh = self.executor.mesh
        if not mesh.may_rejoin:
            return
        log("a rank failed alone; the ranks join anew")
        for step, mine in (b"leave", mesh.leave), (b"rejoin", mesh.rejoin):
            self._tell([step])
            outcomes = [_done(mine), *self._hear()]
            if failure := next((o.failure for o in outcomes if o.failure), None):
                self._watch.restart(f"its ranks could not join anew: {failure['problem']}")

    def _tell(self, frames: Sequence[Any]) -> None:
        if self.workers:
            for name in self._names:
                self._link.commands.send_multipart([name, *frames])

    def _hear(self) -> list[Outcome]:
        """One outcome of every worker; their prints are passed on meanwhile."""
        answers: dict[bytes, Outcome] = {}
        while len(answers) < self.workers:
            name, kind, *rest = self._link.commands.recv_multipart()
            if kind == b"output":
                self._emit(int(name), rest[0].decode(), rest[1].decode())
            else:
                answers[name] = self._opened(rest)
        return [answers[name] for name in self._names]

    def _opened(self, frames: Sequence[Any]) -> Outcome:
        """A worker's outcome; that it cannot be read is one too, for those of the others are to be heard."""
        try:
            return self.lent.opened(frames)
        except Exception as error:  # noqa: BLE001 - memory may end, or files that may be open
            return Outcome(failure=_failure(error))

    def stop(self) -> None:
        """End the workers' loops."""
        self._link.part()
        self._tell([b"stop"])


def _worst(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The failure to report: the user's own before those that merely followed."""
    failures = [(o.follows, o.failure) for o in outcomes if o.failure]
    order = {"ProbeError": 0, "ServerError": 2}
    worst = min(failures, key=lambda told: (told[0], order.get(told[1]["class"], 1)))[1]
    return with_edits_of(worst, [failure for _, failure in failures])


def _done(step: Callable[[], Any]) -> Outcome:
    """The outcome of something between two requests."""
    try:
        return Outcome(step())
    except Exception as error:  # noqa: BLE001 - rank 0 is told
        return Outcome(failure=_failure(error))


def _title(number: int, request: Request | None) -> str:
    """What to call a request that is over, to somebody who looks for what it saved."""
    kind = type(request).__name__.lower() if request else "request"
    return f"{kind} {number}, which ended at {time.strftime('%H:%M:%S')}"


def _encoded(value: Any) -> list[Any]:
    payload, buffers = codec.dumps(value)
    return [payload, *buffers]


class Worker:
    """The side of every other rank: does what it is told until it is told to stop.

    Args:
        shared: directory in shared memory by which it answers; None on another host than rank 0's.
    """

    def __init__(self, executor: Executor, link: Link, shared: Path | None = None) -> None:
        self.executor = executor
        self._link, self._shared = link, shared
        self._failed = ""
        mesh = executor.mesh
        told = (link, mesh.rank, mesh.stage, executor.interrupts, lambda: self._failed)
        threading.Thread(target=answer_watch, args=told, daemon=True, name="signals").start()

    def introduce(self, facts: dict[str, Any], catalog: Any) -> None:
        """Say what this rank holds."""
        introduction = (facts, catalog, self.executor.contexts.news())
        self._link.commands.send_multipart(_encoded(introduction))

    def emit(self, stream: str, text: str) -> None:
        """Pass a print on to rank 0; all of it, for half a message would join the next."""
        with self.executor.interrupts.held():
            self._link.commands.send_multipart([b"output", stream.encode(), text.encode()])

    def serve(self) -> None:
        """Until told to stop."""
        while True:
            kind, *frames = self._link.commands.recv_multipart()
            if kind == b"stop":
                self._link.part()
                return
            if kind == b"catalog":
                self.executor.bound.catalog = codec.loads(frames[0], frames[1:])
            elif kind == b"leave":
                self._answer(_done(self.executor.mesh.leave))
            elif kind == b"rejoin":
                self._answer(_done(self.executor.mesh.rejoin))
            elif kind == b"prepare":
                self._serve_one(frames[0].decode(), int(frames[1]), frames[2:])
                memory.give_back()

    def _serve_one(self, request_id: str, number: int, frames: Sequence[bytes]) -> None:
        self._failed = ""
        self.executor.contexts.begin()
        try:
            with self.executor.interrupts.running(request_id):
                self._run(number, frames)
        finally:
            self.executor.contexts.end()

    def _run(self, number: int, frames: Sequence[bytes]) -> None:
        request = None
        try:
            request = codec.loads(frames[0], frames[1:])
            prepared, outcome = attempt(self.executor, request)
        except Exception as error:  # noqa: BLE001 - every failure is an answer
            prepared, outcome = None, Outcome(failure=_failure(error))
        self._answer(outcome)
        (kind,) = self._link.commands.recv_multipart()
        if kind != b"go" or prepared is None:
            return
        outcome = perform(self.executor, prepared)
        if outcome.failure and outcome.failure["class"] != "ProbeError":
            self._failed = str(outcome.failure.get("problem"))
        self.executor.contexts.keep(number, _title(number, request))
        self._answer(outcome, request)

    def _answer(self, outcome: Outcome, request: Request | None = None) -> None:
        try:
            answer = frames(outcome, self._shared)
        except CannotTravel as error:
            named = merging.name_culprit(request, outcome.value, error)
            answer = frames(Outcome(failure=describe(named), news=outcome.news), self._shared)
        self._link.commands.send_multipart([b"answer", *answer])
