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
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import zmq

from garcon_backend.execution.executor import Executor
from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.lockstep.answers import AnswerFiles
from garcon_backend.lockstep.command_sockets import Link, encoded
from garcon_backend.lockstep.outcome import (
    RankOutcome,
    RequestFailed,
    attempt,
    between_requests,
    failure_of,
    perform,
    title_of,
    worst,
)
from garcon_backend.lockstep.recorded import Recorded
from garcon_backend.lockstep.watchdog import Watchdog
from garcon_backend.process.output import log
from garcon_jupyter.points import Catalog
from garcon_jupyter.wire import codec
from garcon_jupyter.wire.requests import Request

NOTICED = 5.0
"""Seconds in which the supervisor has noticed that a rank is gone."""


class Lockstep:
    """Rank 0's side: runs requests on all ranks.

    Attributes:
        answer_files: the files in shared memory that the ranks wrote for the answer of the last request.
        recorded: what is recorded where, as of the last request.
    """

    def __init__(self, executor: Executor, workers: int, link: Link) -> None:
        self.executor = executor
        self.workers = workers
        self._link = link
        self._number = executor.rank.contexts.finished
        self.answer_files = AnswerFiles()
        self.recorded = Recorded()
        self._emit: Callable[[int, str, str], None] = lambda rank, stream, text: None
        self._names: list[bytes] = []
        self._watchdog: Watchdog | None = None

    def introductions(self) -> list[Any]:
        """What every worker says of itself, by rank; waits for them. What was recorded before the ranks were started
        anew is known then."""
        heard: dict[bytes, Any] = {}
        while len(heard) < self.workers:
            name, payload, *buffers = self._link.commands.recv_multipart()
            heard[name] = codec.loads(payload, buffers)
        self._names = sorted(heard, key=int)
        told = [heard[name] for name in self._names]
        self.recorded.learn([self.executor.rank.contexts.news(), *(news for _, _, news in told)])
        return [(facts, catalog) for facts, catalog, _ in told]

    def watched(self, stages: Sequence[int], restart: Callable[[str], None], pulse: Path) -> None:
        """From now on the ranks, of these stages, are watched; see :class:`Watchdog`."""
        self._watchdog = Watchdog(self.executor.rank.interrupts, stages, self._link)
        self._watchdog.start(restart, pulse)

    def unwatched(self) -> None:
        """The one rank is in a process of somebody else's, which nobody would start anew: requests can be stopped,
        and no more."""
        self._watchdog = Watchdog(self.executor.rank.interrupts, [0], self._link)

    def share_catalog(self, catalog: Catalog) -> None:
        """Let every rank resolve names by the catalog of all stages."""
        self.executor.rank.bound.catalog = catalog
        self._tell([b"catalog", *encoded(catalog)])

    def on_output(self, emit: Callable[[int, str, str], None]) -> None:
        """Where the workers' prints go: (rank, stream, text)."""
        self._emit = emit

    def cancel(self, request_id: str) -> None:
        """Stop a request on every rank; from any thread."""
        assert self._watchdog is not None
        self._watchdog.cancel(request_id)

    def is_cancelled(self, request_id: str) -> bool:
        """Whether a request that has yet to run is to stop; from any thread."""
        assert self._watchdog is not None
        return self._watchdog.is_cancelled(request_id)

    def run(self, request_id: str, request: Request) -> Any:
        """Run a request on all ranks; see :meth:`run_handled`."""
        return self.run_handled(request_id, self.executor.handler(request))

    def run_handled(self, request_id: str, handler: RequestHandler[Any]) -> Any:
        """Run the request of a handler on all ranks.

        Returns:
            The answer, of all ranks together.

        Raises:
            RequestFailed: on any rank; the others have finished and are right.
        """
        assert self._watchdog is not None
        with self.executor.rank.interrupts.running(request_id):
            # Before anybody was told: from now on the ranks stop together, or not at all.
            self.executor.rank.interrupts.check()
            self._watchdog.begin(request_id)
            self.executor.rank.contexts.begin()
            try:
                return self._run(request_id, handler)
            finally:
                self._watchdog.end()
                self.executor.rank.contexts.end(self._number)  # by now all ranks have put it down

    def _run(self, request_id: str, handler: RequestHandler[Any]) -> Any:
        self._number += 1
        self.answer_files.end()
        if self.workers:
            number = str(self._number).encode()
            self._tell([b"prepare", request_id.encode(), number, *encoded(handler.request)])
        prepared, outcome = attempt(lambda: self.executor.prepare(handler))
        outcomes = [outcome, *self._hear()]
        if any(o.failure for o in outcomes) or prepared is None:
            self._tell([b"skip"])
            raise RequestFailed(worst(outcomes))
        self._tell([b"go"])
        outcome = perform(self.executor.rank, prepared)
        self.executor.rank.contexts.keep(self._number, title_of(self._number, handler.request))
        outcomes = [outcome, *self._hear()]
        self.recorded.learn(o.news for o in outcomes)
        if any(o.alone for o in outcomes):
            self._join_anew()
        if any(o.failure for o in outcomes):
            raise RequestFailed(worst(outcomes))
        try:
            return handler.combine([o.value for o in outcomes])
        except BaseException as error:  # a merge rule of the user's may raise anything
            raise RequestFailed(failure_of(error)) from error

    def _join_anew(self) -> None:
        """Some ranks have left their groups: so do the others, and all join anew."""
        assert self._watchdog is not None
        mesh = self.executor.rank.mesh
        if not mesh.may_rejoin:
            return
        log("a rank failed alone; the ranks join anew")
        for step, mine in (b"leave", mesh.leave), (b"rejoin", mesh.rejoin):
            self._tell([step])
            outcomes = [between_requests(mine), *self._hear()]
            if failure := next((o.failure for o in outcomes if o.failure), None):
                self._watchdog.restart(f"its ranks could not join anew: {failure['problem']}")

    def _tell(self, frames: Sequence[Any]) -> None:
        if self.workers:
            for name in self._names:
                try:
                    self._link.commands.send_multipart([name, *frames])
                except zmq.ZMQError as error:
                    if error.errno != zmq.EHOSTUNREACH:
                        raise
                    self._await_end(int(name))

    def _await_end(self, rank: int) -> NoReturn:
        """A rank is gone. That is no failure of the request: the supervisor notices it too, and ends this process
        as well, with the reason. Should it not, the ranks are started anew from here."""
        assert self._watchdog is not None
        time.sleep(NOTICED)
        self._watchdog.restart(f"rank {rank} cannot be reached")
        raise AssertionError("starting the ranks anew does not return")

    def _hear(self) -> list[RankOutcome]:
        """One outcome of every worker; their prints are passed on meanwhile."""
        answers: dict[bytes, RankOutcome] = {}
        while len(answers) < self.workers:
            name, kind, *rest = self._link.commands.recv_multipart()
            if kind == b"output":
                self._emit(int(name), rest[0].decode(), rest[1].decode())
            else:
                answers[name] = self._opened(rest)
        return [answers[name] for name in self._names]

    def _opened(self, frames: Sequence[Any]) -> RankOutcome:
        """A worker's outcome; that it cannot be read is one too, for those of the others are to be heard."""
        try:
            outcome: RankOutcome = self.answer_files.opened(frames)
        except Exception as error:  # noqa: BLE001 - memory may end, or files that may be open
            outcome = RankOutcome(failure=failure_of(error))
        return outcome

    def stop(self) -> None:
        """End the workers' loops; one that is gone has ended."""
        self._link.part()
        for name in self._names if self.workers else ():
            with contextlib.suppress(zmq.ZMQError):
                self._link.commands.send_multipart([name, b"stop"])
