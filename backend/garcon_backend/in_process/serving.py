"""Questions and requests about a model in this process, answered as the kernel of a server answers them.

The same handlers, the same sessions and turns; but whoever asks waits, and the work is done by the thread that asks. So a run
over data, which on a server goes on by itself, goes on here while it is looked at.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from garcon_backend.execution.rank_loading import LoadedRank
from garcon_backend.kernel.answering import Answering
from garcon_backend.kernel.context import KernelContext
from garcon_backend.kernel.control import Content, ControlHandlers
from garcon_backend.kernel.forgetting import forget_gone
from garcon_backend.kernel.idle import IdleClock
from garcon_backend.kernel.queue_places import QueuePlaces
from garcon_backend.lockstep.command_sockets import Link
from garcon_backend.lockstep.coordinator import Lockstep
from garcon_backend.lockstep.turns import Queued
from garcon_backend.runs.run import DataRun
from garcon_backend.runs.server_runs import Runs
from garcon_backend.tokenization.tokenizer import Tokenizing
from garcon_jupyter.errors import BadRequest, Interrupted
from garcon_jupyter.wire import protocol

LOOK = 0.2
"""Seconds for which runs go on when one is looked at."""

Show = Callable[[int, str, str], None]
"""(rank, "stdout" or "stderr", text) -> None"""


@dataclass
class _Asked:
    """A request of somebody who waits: its message, and where what it prints appears."""

    parent: dict[str, Any]
    show: Show
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)
    answer: tuple[Content, list[Any]] | None = None

    def print(self, rank: int, stream: str, text: str) -> None:
        """Show a text where the request came from, though user code runs, whose output is caught."""
        with redirect_stdout(self.out), redirect_stderr(self.err):
            self.show(rank, stream, text)


class Serving:
    """Answers whoever is connected to a model in this process.

    Args:
        loaded: the one rank, with the model.
        facts: plain facts, as of a server.

    Attributes:
        facts: these.
        ended: why it answers no more; "" while it does.
    """

    def __init__(self, loaded: LoadedRank, facts: dict[str, Any]) -> None:
        self.facts, self.ended = facts, ""
        files = tempfile.mkdtemp(prefix="garcon-here-")  # for checkpoints of runs
        weakref.finalize(self, shutil.rmtree, files, ignore_errors=True)
        lockstep = Lockstep(loaded.executor, 0, Link(None, None, None))
        lockstep.unwatched()
        context = self._context = KernelContext(
            lockstep,
            Tokenizing(loaded.executor.rank.tokenizer),
            IdleClock(0),
            facts,
            loaded.catalog,
            None,
            self._end,
            Path(files),
            None,
        )
        self._turns, tokenizer = context.turns, context.tokenizing.tokenizer
        sizes, checkpoints = loaded.catalog.sizes, context.checkpoints
        self._runs = Runs(lockstep, tokenizer, sizes, checkpoints, self._turns.put)
        places = QueuePlaces(self._turns, context.user, lambda item, content: None)
        self._control = ControlHandlers(context, self._runs, places, self._take_out, self._end)
        self._answering = Answering(context, self._runs)
        self._lock = threading.RLock()
        loaded.executor.rank.output.to(self._emit)

    def answer(self, kind: str, message: dict[str, Any]) -> tuple[Content, list[Any]]:
        """The answer to a short question, and its buffers."""
        if kind == protocol.RUN and message["content"].get("verb") == "poll":
            self._go_on()
        return self._control.answer(kind, message)

    def run(self, message: dict[str, Any], show: Show) -> tuple[Content, list[Any]]:
        """The answer to a request, and its buffers.

        Raises:
            BadRequest: it was asked by code of another that runs.
            Interrupted: before its turn came.
        """
        content, asked = message["content"], _Asked(message, show)
        session, behind = content.get("session", ""), content.get("behind", False)
        item = Queued(session, message["header"]["msg_id"], content.get("kind", "?"), asked, behind)
        with self._lock:
            if self._turns.running:
                raise BadRequest(
                    "A request cannot be made by the code of another one.",
                    "Let the probe save what it sees, and ask when its pass is over.",
                )
            forget_gone(self._context, self._runs, self._control.is_empty)
            self._turns.put(item)
            try:
                while asked.answer is None:
                    self._take_turn()
            except KeyboardInterrupt:
                self._turns.remove(item.id)
                raise Interrupted(
                    "The request was interrupted before its turn.", "Nothing ran."
                ) from None
        return asked.answer

    def _go_on(self) -> None:
        """Let runs go on for a moment."""
        end = time.monotonic() + LOOK
        with self._lock:
            while not self._turns.running and self._turns.waiting() and time.monotonic() < end:
                self._take_turn()

    def _take_turn(self) -> None:
        item = self._turns.next()
        if item is None:
            time.sleep(self._turns.pause or 0.0)
            return
        try:
            if isinstance(item.message, DataRun):
                self._runs.turn(item.message)
            else:
                item.message.answer = self._answering.answer(item, item.message.parent)
        finally:
            self._turns.end(item)

    def _take_out(self, request_id: str) -> bool:
        """Take a run that waits out of the queue; whether it waited. Nothing else ever does."""
        waiting = self._turns.remove(request_id)
        if waiting is not None and isinstance(waiting.message, DataRun):
            self._runs.cancel_waiting(waiting.message)
        return waiting is not None

    def _emit(self, stream: str, text: str) -> None:
        """Pass on what user code printed."""
        if running := self._turns.running:
            running.message.print(0, stream, text)

    def _end(self, reason: str) -> None:
        self.ended = reason
