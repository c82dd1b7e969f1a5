"""The side of every other rank than 0: it does what it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from garcon_backend.execution.executor import Executor
from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.lockstep.answers import frames
from garcon_backend.lockstep.command_sockets import Link, encoded
from garcon_backend.lockstep.outcome import (
    RankOutcome,
    attempt,
    between_requests,
    perform,
    title_of,
)
from garcon_backend.lockstep.watchdog import answer_watchdog
from garcon_backend.process import memory
from garcon_jupyter.errors import CannotTravel
from garcon_jupyter.wire import codec
from garcon_jupyter.wire.failures import describe


class Worker:
    """The side of every other rank: does what it is told until it is told to stop.

    Args:
        shared: directory in shared memory by which it answers; None on another host than rank 0's.
    """

    def __init__(self, executor: Executor, link: Link, shared: Path | None = None) -> None:
        self.executor = executor
        self._link, self._shared = link, shared
        self._failed = ""
        mesh = executor.rank.mesh
        told = (link, mesh.rank, mesh.stage, executor.rank.interrupts, lambda: self._failed)
        executor.rank.output.to(self.emit)
        threading.Thread(target=answer_watchdog, args=told, daemon=True, name="signals").start()

    def introduce(self, facts: dict[str, Any], catalog: Any) -> None:
        """Say what this rank holds."""
        introduction = (facts, catalog, self.executor.rank.contexts.news())
        self._link.commands.send_multipart(encoded(introduction))

    def emit(self, stream: str, text: str) -> None:
        """Pass a print on to rank 0; all of it, for half a message would join the next."""
        with self.executor.rank.interrupts.held():
            self._link.commands.send_multipart([b"output", stream.encode(), text.encode()])

    def serve(self) -> None:
        """Until told to stop."""
        while True:
            kind, *frames = self._link.commands.recv_multipart()
            if kind == b"stop":
                self._link.part()
                return
            if kind == b"catalog":
                self.executor.rank.bound.catalog = codec.loads(frames[0], frames[1:])
            elif kind == b"leave":
                self._answer(between_requests(self.executor.rank.mesh.leave))
            elif kind == b"rejoin":
                self._answer(between_requests(self.executor.rank.mesh.rejoin))
            elif kind == b"prepare":
                self._serve_one(frames[0].decode(), int(frames[1]), frames[2:])
                memory.give_back()

    def _serve_one(self, request_id: str, number: int, frames: Sequence[bytes]) -> None:
        self._failed = ""
        self.executor.rank.contexts.begin()
        try:
            with self.executor.rank.interrupts.running(request_id):
                self._run(number, frames)
        finally:
            self.executor.rank.contexts.end()

    def _run(self, number: int, frames: Sequence[bytes]) -> None:
        handler: RequestHandler[Any] | None = None

        def prepare() -> Callable[[], Any]:
            nonlocal handler
            handler = self.executor.handler(codec.loads(frames[0], frames[1:]))
            return self.executor.prepare(handler)

        prepared, outcome = attempt(prepare)
        self._answer(outcome)
        (kind,) = self._link.commands.recv_multipart()
        if kind != b"go" or prepared is None or handler is None:
            return
        outcome = perform(self.executor.rank, prepared)
        if outcome.failure and outcome.failure["class"] != "ProbeError":
            self._failed = str(outcome.failure.get("problem"))
        self.executor.rank.contexts.keep(number, title_of(number, handler.request))
        self._answer(outcome, handler)

    def _answer(self, outcome: RankOutcome, handler: RequestHandler[Any] | None = None) -> None:
        try:
            answer = frames(outcome, self._shared)
        except CannotTravel as error:
            named = handler.name_culprit(outcome.value, error) if handler else error
            answer = frames(RankOutcome(failure=describe(named), news=outcome.news), self._shared)
        self._link.commands.send_multipart([b"answer", *answer])
