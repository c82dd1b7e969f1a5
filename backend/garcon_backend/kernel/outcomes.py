"""What became of requests that nobody waited for to the end.

A reply goes to the client that asked, if it is there. Where its notebook was restarted meanwhile, its machine
slept, or its user stopped waiting, the answer to a long request would be lost. So the answers to requests that
took long, or from which their client *detached*, are kept for their session, with all that was printed, until
somebody received them or newer ones take their room.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from garcon_backend.kernel.data_socket import DataPlane
from garcon_jupyter.errors import BadRequest

LONG = 5.0
"""Seconds from which on the answer to a request is kept until it was received."""

KEPT = 8
"""Answers kept for each session."""

LARGEST = 64 << 20
"""Bytes of an answer that is kept; larger ones only in shared memory."""

SOON = 5.0
"""Seconds within which a request comes from which its client detached, or never: they travel on two sockets."""

REMEMBERED = 256
"""Requests from which clients detached and that have not ended."""

Print = tuple[int, str, str]
"""(rank, stream, text)"""


@dataclass
class EndedRequest:
    """A request that ended."""

    session: str
    request: str
    kind: str
    content: dict[str, Any]
    buffers: list[Any]
    prints: list[Print] = field(default_factory=list)
    ended: float = field(default_factory=time.time)

    def release(self) -> None:
        """Free the shared memory of an answer that nobody fetched."""
        for file in self._described("files") or ():
            with contextlib.suppress(OSError):
                Path(file).unlink(missing_ok=True)

    @property
    def transfer(self) -> str | None:
        """The transfer by which its buffers travel, if they do so."""
        transfer: str | None = self._described("transfer")
        return transfer

    @property
    def nbytes(self) -> int:
        """Bytes that keeping it takes; shared memory does not count."""
        inside = sum(memoryview(buffer).nbytes for buffer in self.buffers)
        spans: list[tuple[int, int]] | None = self._described("spans") if self.transfer else None
        return inside + sum(size for _, size in spans or ())

    def _described(self, what: str) -> Any:
        """What the description of its value says."""
        described = [value for value in self.content.values() if isinstance(value, dict)]
        return next((value[what] for value in described if what in value), None)


class Outcomes:
    """Those of all sessions. Asked on the control thread, told on the main one.

    Args:
        data: holds the large values of answers that travel over the socket for data; None where none do.
    """

    def __init__(self, data: DataPlane | None) -> None:
        self._data = data
        self._kept: dict[str, OrderedDict[str, EndedRequest]] = {}
        self._detached: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def detach(self, request: str) -> None:
        """The client no longer waits for a request, which may be on its way still."""
        with self._lock:
            self._detached[request] = time.monotonic()
            while len(self._detached) > REMEMBERED:
                self._detached.popitem(last=False)

    def detached(self, request: str) -> bool:
        """Whether its client no longer waits for a request."""
        return request in self._detached

    def expected(self, request: str) -> bool:
        """Whether a request of which nothing is known may still come."""
        with self._lock:
            since = self._detached.get(request)
        return since is not None and time.monotonic() - since < SOON

    def keep(self, outcome: EndedRequest, since: float) -> None:
        """Keep the answer to a request that came at `since`, if it is worth it."""
        with self._lock:
            detached = self._detached.pop(outcome.request, None) is not None
        if not detached and time.time() - since < LONG:
            return
        if outcome.nbytes > LARGEST:
            return
        if self._data and outcome.transfer:
            self._data.keep(outcome.transfer)
        with self._lock:
            kept = self._kept.setdefault(outcome.session, OrderedDict())
            kept[outcome.request] = outcome
            while len(kept) > KEPT:
                self._release(kept.popitem(last=False)[1])

    def _release(self, outcome: EndedRequest) -> None:
        outcome.release()
        self._let_go(outcome)

    def _let_go(self, outcome: EndedRequest) -> None:
        if self._data and outcome.transfer:
            self._data.let_go(outcome.transfer)

    def received(self, session: str, request: str) -> None:
        """Its client has the answer."""
        with self._lock:
            outcome = self._kept.get(session, OrderedDict()).pop(request, None)
        if outcome:
            self._let_go(outcome)

    def of(self, session: str) -> list[dict[str, Any]]:
        """What is kept for a session, oldest first."""
        with self._lock:
            return [
                {"request": o.request, "kind": o.kind, "state": "ended", "since": o.ended}
                for o in self._kept.get(session, {}).values()
            ]

    def take(self, session: str, request: str) -> EndedRequest:
        """The answer to a request; it stays until it is received.

        Raises:
            BadRequest: none is kept.
        """
        with self._lock:
            found = self._kept.get(session, OrderedDict()).get(request)
        if found is None:
            raise BadRequest(
                f"No answer to request {request} is kept for session {session!r}.",
                "rmodel.pending() lists those that are.",
            )
        return found

    def drop(self, session: str) -> None:
        """Forget a session."""
        with self._lock:
            for outcome in self._kept.pop(session, OrderedDict()).values():
                self._release(outcome)
