"""The line of a client to a model in its own process.

It keeps the protocol of ``garcon_jupyter.connection.connection``. What is said passes through the same bytes as on the way to
a server, and is copied: so neither side holds memory of the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from garcon_backend.in_process.serving import Serving, Show
from garcon_jupyter.errors import NotConnected, ServerGone
from garcon_jupyter.wire import protocol, transport
from garcon_jupyter.wire.failures import revive


class InProcessConnection:
    """A line to a model in this process. Safe to use from several threads, one request at a time.

    Args:
        serving: answers.
        key: by which models are told apart.

    Attributes:
        facts: what is served, in plain data.
        same_host: whether the model is on this host.
        request_id: of the request that runs; None while there is none.
        took: seconds that the last request ran.
        warn: is never called: nothing here ends because nobody uses it.
    """

    def __init__(self, serving: Serving, key: str) -> None:
        self._serving, self.key = serving, key
        self.facts: dict[str, Any] = serving.facts
        self.same_host = True
        self.request_id: str | None = None
        self.took = 0.0
        self.warn: Callable[[float], None] = lambda seconds: None
        self._owner, self._closed = os.getpid(), False

    @property
    def mine(self) -> bool:
        """Whether this process made it; else it is a fork of the one that did."""
        return os.getpid() == self._owner

    def client_facts(self) -> dict[str, Any]:
        """What this client says of itself."""
        return protocol.client_facts()

    def follow(self, tell: Callable[[str], None] | None = None) -> None:
        """Make sure that the model can be asked.

        Args:
            tell: is told nothing: a model in this process is there or not.

        Raises:
            NotConnected: this connection is closed, or another process's.
            ServerGone: somebody has ended it.
        """
        name = self.facts["name"]
        if not self.mine:
            raise NotConnected(
                f"This connection to {name!r} is that of process {self._owner}, which was forked.",
                "Open the model in this process: garcon_backend.in_process.open_here.",
            )
        if self._closed:
            raise NotConnected(
                f"This connection to {name!r} was closed.",
                "garcon.connect(model, session=…) goes on in its session, as long as the model is open.",
            )
        if self._serving.ended:
            raise ServerGone(
                f"{name!r} has ended: {self._serving.ended}.",
                "garcon_backend.in_process.open_here opens it again.",
            )

    def wait_for_prints(self) -> None:
        """Come back at once: no print is ever missed here."""

    def ask(self, kind: str, content: dict[str, Any], buffers: Any = ()) -> dict[str, Any]:
        """Ask a short question.

        Returns:
            The content of the answer, and its "buffers".

        Raises:
            NotConnected: this connection is closed, or another process's.
            ServerGone: somebody has ended the model.
            GarconError: what was answered.
        """
        self.follow()
        return _arrived(*self._serving.answer(kind, _message(content, buffers)))

    def request(
        self, content: dict[str, Any], value: Any, show: Show, into: memoryview | None = None
    ) -> Any:
        """Run a request; its answer.

        Args:
            content: whose it is, its kind, and whether it stands behind what persons run.
            value: the request.
            show: shows meanwhile what it prints.
            into: is not used: the answer has memory of its own.

        Raises:
            NotConnected: this connection is closed, or another process's.
            Interrupted: the user interrupted it; the model is intact.
            GarconError: what was answered.
        """
        self.follow()
        self.took = 0.0
        packed, buffers = transport.pack(value)
        message = _message({**content, **packed}, buffers)
        self.request_id = message["header"]["msg_id"]
        try:
            reply = self._serving.run(message, show)
        finally:
            self.request_id = None
        self.took = reply[0]["seconds"]
        return _value(_arrived(*reply))

    def outcome(self, session: str, request: str, show: Show) -> tuple[str, Any]:
        """The answer to a request that was sent before, which none was that is not answered.

        Raises:
            BadRequest: no answer is kept.
        """
        told = self.ask(protocol.OUTCOME, {"session": session, "request": request})
        return told["kind"], _value(told)

    def leave(self, session: str) -> None:
        """Let go of a session, if the model is still open."""
        with contextlib.suppress(NotConnected, ServerGone):
            self.ask(protocol.GOODBYE, {**self.client_facts(), "session": session})

    def close(self, patience: float = 0.0) -> None:
        """Hang up.

        Args:
            patience: is not needed: a request of another thread comes to its end.
        """
        self._closed = True


def _message(content: dict[str, Any], buffers: Sequence[Any]) -> dict[str, Any]:
    """A message as it arrives."""
    return {
        "header": {"msg_id": uuid.uuid4().hex},
        "content": json.loads(json.dumps(content)),
        "buffers": [bytearray(buffer) for buffer in buffers],
    }


def _arrived(content: dict[str, Any], buffers: Sequence[Any]) -> dict[str, Any]:
    """The content of an answer as it arrives, with its buffers; raises what it says that went wrong."""
    message = _message(content, buffers)
    content = message["content"]
    if content.get("status") != "ok":
        raise revive(content["failure"])
    return {**content, "buffers": message["buffers"]}


def _value(content: dict[str, Any]) -> Any:
    return transport.unpack(content, content["buffers"])
