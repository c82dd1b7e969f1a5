"""Requests that wait for the model, are run in turn, and are called off when whoever asked has gone.

The model answers one request after the other, so one thread asks it. What needs no pass (tokens, what there is, stored records) has threads
of its own, and is answered while the model is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from garcon_jupyter.connection import called_off, prints
from garcon_jupyter.errors import Interrupted, ServerGone
from garcon_jupyter.operations.failures import failure
from garcon_jupyter.operations.limits import RequestLimits
from garcon_jupyter.operations.operation import Door, Operation
from garcon_jupyter.operations.table import named

if TYPE_CHECKING:
    from garcon_jupyter.atlas import Atlas
    from garcon_jupyter.model import RemoteModel

LOG = logging.getLogger("garcon.http")

QUICK_THREADS = 4

RETRY_AFTER = 1
"""Seconds after which somebody who came to a full queue may come back."""

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Reply:
    """An answer, or what is wrong.

    Attributes:
        status: of HTTP.
        body: JSON.
        headers: beside those that every answer has.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class OperationDesk:
    """Takes requests to one model.

    Args:
        connect: makes a connection to it; None where there are stored records alone.
        limits: how much one request may ask for.
        atlases: stored records, by name.
    """

    def __init__(
        self,
        connect: Callable[[], RemoteModel] | None,
        limits: RequestLimits | None = None,
        atlases: Mapping[str, Atlas] | None = None,
    ) -> None:
        self.limits = limits or RequestLimits()
        self._connect, self._atlases = connect, dict(atlases or {})
        self._model: RemoteModel | None = None
        self._connecting = threading.Lock()
        self._in_turn = ThreadPoolExecutor(1, thread_name_prefix="garcon model")
        self._quick = ThreadPoolExecutor(QUICK_THREADS, thread_name_prefix="garcon quick")
        self._waiting = 0

    async def answer(self, name: str, body: bytes, tell: Tell | None = None) -> Reply:
        """Answer a request. When this is cancelled the request is called off, whether it waits or runs.

        Args:
            name: of the operation.
            body: the request, as JSON.
            tell: is told of progress, on the loop of this call.
        """
        try:
            operation = named(name)
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            return _failed(error)
        if not operation.quick and self._waiting >= self.limits.waiting:
            return _full(self._waiting)
        loop, gone = asyncio.get_running_loop(), threading.Event()

        def told(what: dict[str, Any]) -> None:
            if tell is not None and not gone.is_set():
                loop.call_soon_threadsafe(tell, what)

        pool = self._quick if operation.quick else self._in_turn
        self._waiting += not operation.quick
        try:
            work = pool.submit(self._work, operation, body, gone, told)
            return await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            gone.set()
            raise
        finally:
            self._waiting -= not operation.quick

    def _work(
        self, operation: Operation[Any, Any], body: bytes, gone: threading.Event, tell: Tell
    ) -> Reply:
        """Do it, in a thread of the pool."""
        try:
            with called_off.by(gone), prints.shown_by(prints.silent):
                asked = operation.request.model_validate_json(body or b"{}")
                door = Door(self._connected(), self.limits, self._atlases, tell)
                answer = operation.work(door, asked)
                return Reply(200, answer.model_dump_json().encode())
        except KeyboardInterrupt:
            return _failed(Interrupted("The request was called off.", "Ask again."))
        except Exception as error:
            if isinstance(error, ServerGone):
                self._forget()
            reply = _failed(error)
            if reply.status == 500:
                LOG.exception("%s failed", operation.name)
            return reply

    def _connected(self) -> RemoteModel | None:
        """The connection, made when it is first needed, and anew when the server was lost."""
        if self._connect is None:
            return None
        with self._connecting:
            if self._model is None or self._model.closed:
                self._model = self._connect()
            return self._model

    def _forget(self) -> None:
        with self._connecting:
            model, self._model = self._model, None
        if model is not None:
            with contextlib.suppress(Exception):
                model.close()

    def close(self) -> None:
        """Hang up; what waits is not run any more."""
        self._in_turn.shutdown(wait=False, cancel_futures=True)
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._forget()


def _failed(error: BaseException) -> Reply:
    status, told = failure(error)
    headers = {"Retry-After": str(RETRY_AFTER)} if status == 503 else {}
    return Reply(status, told.model_dump_json().encode(), headers)


def _full(waiting: int) -> Reply:
    from garcon_jupyter.operations.failures import Failure

    told = Failure(
        kind="Busy",
        problem=f"{waiting} requests wait already.",
        remedy=f"Come back in {RETRY_AFTER} second.",
    )
    return Reply(503, told.model_dump_json().encode(), {"Retry-After": str(RETRY_AFTER)})
