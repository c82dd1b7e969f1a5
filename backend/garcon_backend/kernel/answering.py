"""A request as it came, and its answer as it goes: unpacked and checked, run on all ranks, packed.

By which way either travels is for others to say: the kernel, or a client in this very process.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.kernel.context import KernelContext
from garcon_backend.kernel.control import Content, typed
from garcon_backend.kernel.exchanging import check_undisturbed
from garcon_backend.kernel.messages import unpacked
from garcon_backend.kernel.probe_cache import ProbeCache
from garcon_backend.lockstep.outcome import RequestFailed
from garcon_backend.lockstep.turns import Queued
from garcon_backend.runs.server_runs import Runs
from garcon_jupyter.errors import BadRequest, CannotTravel
from garcon_jupyter.wire import transport
from garcon_jupyter.wire.checking import check
from garcon_jupyter.wire.failures import describe
from garcon_jupyter.wire.requests import Request


class Answering:
    """Answers requests, one after the other.

    Args:
        context: what they are answered with.
        runs: those of the server.
    """

    def __init__(self, context: KernelContext, runs: Runs) -> None:
        self._context, self._runs = context, runs
        self._probe_cache = ProbeCache()

    def answer(
        self, item: Queued, parent: dict[str, Any], take: transport.Take | None = None
    ) -> tuple[Content, list[Any]]:
        """The answer to a request whose turn it is, whatever it is, and its buffers; what is wrong with it is the
        answer, too.

        Args:
            parent: the message.
            take: gives what came over the socket for data.
        """
        buffers: list[Any] = []
        began = time.monotonic()
        try:
            content, buffers = self._run(item, parent, take)
        except RequestFailed as error:
            content = {"status": "error", "failure": error.failure}
        except BaseException as error:  # noqa: BLE001 - every request is answered
            content = {"status": "error", "failure": describe(typed(error))}
        item.seconds = time.monotonic() - began
        # Prints travel another way: the client knows by their number when it has heard the last.
        return {**content, "printed": item.printed, "seconds": item.seconds}, buffers

    def _run(
        self, item: Queued, parent: dict[str, Any], take: transport.Take | None
    ) -> tuple[Content, list[Any]]:
        sessions, lockstep = self._context.sessions, self._context.lockstep
        request = unpacked(parent, self._context.shared, take)
        if not isinstance(request, Request) or not sessions.known(request.session):
            raise BadRequest("This is no request of an open session.", "Connect first.")
        check(request, type(request), type(request).__name__.lower())
        sessions.seen(request.session)
        check_undisturbed(self._context, self._runs, request)
        self._probe_cache.fill(request)
        handler = lockstep.executor.handler(request)
        handler.admit(self._shared(parent))
        try:
            value = lockstep.run_handled(item.id, handler)
            return self._packed(handler, value, parent)
        finally:
            lockstep.answer_files.end()

    def _packed(
        self, handler: RequestHandler[Any], value: Any, parent: dict[str, Any]
    ) -> tuple[Content, list[Any]]:
        """An answer as content and buffers of a message."""
        way, files = self._give(handler.request, parent), self._context.lockstep.answer_files
        value = handler.pack(value, by_socket=way is not None)
        try:
            content, buffers = transport.pack(
                value, self._shared(parent), give=way, find=files.find
            )
        except CannotTravel as error:
            raise handler.name_culprit(value, error) from None
        files.hand_on(content["value"].get("files", ()))
        return {"status": "ok", **content}, buffers

    def _shared(self, parent: dict[str, Any]) -> Path | None:
        return self._context.shared if parent["content"].get("same_host") else None

    def _give(self, request: Request, parent: dict[str, Any]) -> transport.Give | None:
        """The way of a large answer over the socket for data, where the client knows that."""
        data = self._context.data
        if data is None or not parent["content"].get("by_socket"):
            return None
        return partial(data.offer, request.session)
