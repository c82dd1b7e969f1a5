"""What a client needs of the line to a model, whatever it is made of.

A served model is reached by messages over sockets (:class:`~garcon_jupyter.connection.channel.Channel`). One that is in this
very process is reached by calls (``garcon_backend.in_process``), which no room of this half knows: it keeps this protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from garcon_jupyter.connection.prints import Show


class Connection(Protocol):
    """A line to one model, on which one request is answered after the other.

    It belongs to the process that made it, and ends with :meth:`close`.

    Attributes:
        facts: what is served, by whom and since when, in plain data.
        same_host: whether the model is on this host, so that paths of files mean the same to both.
        request_id: of the request that is waited for; None while there is none.
        took: seconds that the last request ran.
        warn: called with the seconds that are left when the server is about to end because nobody uses it.
    """

    facts: dict[str, Any]
    same_host: bool
    request_id: str | None
    took: float
    warn: Callable[[float], None]

    @property
    def key(self) -> str:
        """By which servers are told apart, those of one name included."""

    @property
    def mine(self) -> bool:
        """Whether this process made it; else it is a fork of the one that did."""

    def client_facts(self) -> dict[str, Any]:
        """What this client says of itself."""

    def follow(self, tell: Callable[[str], None] | None = None) -> None:
        """Make sure that the next request finds the model; free where nothing happened.

        Args:
            tell: is told where that takes time. Without it, that is an error.

        Raises:
            NotConnected: this connection is closed, or another process's.
            ServerRestarted: the server is being started anew, and nobody is to wait.
            ServerGone: it has ended.
        """

    def wait_for_prints(self) -> None:
        """Come back when no print of a request will be missed."""

    def ask(self, kind: str, content: dict[str, Any], buffers: Any = ()) -> dict[str, Any]:
        """Ask a short question, of :mod:`garcon_jupyter.wire.protocol`.

        Returns:
            The content of the answer, and its "buffers".

        Raises:
            NotConnected: this connection is closed, or another process's.
            ServerGone: no answer.
            GarconError: what was answered.
        """

    def request(
        self, content: dict[str, Any], value: Any, show: Show, into: memoryview | None = None
    ) -> Any:
        """Send a request of :mod:`garcon_jupyter.wire.requests` and wait for its answer.

        Args:
            content: whose it is, its kind, and whether it stands behind what persons run.
            value: the request.
            show: shows meanwhile what it prints.
            into: memory in which a large answer may come; what is not used stays as it is.

        Raises:
            Interrupted: the user interrupted it; the model is intact.
            ServerGone: the server ended.
            GarconError: what was answered.
        """

    def outcome(self, session: str, request: str, show: Show) -> tuple[str, Any]:
        """Wait for a request that was sent before, perhaps by another process; (kind, its answer).

        Raises:
            BadRequest: no answer is kept.
            GarconError: what was answered.
        """

    def leave(self, session: str) -> None:
        """Let go of a session, if anybody still hears that."""

    def close(self, patience: float = 0.0) -> None:
        """Hang up; in a fork, nothing.

        Args:
            patience: seconds in which a request of another thread may end before.
        """


@runtime_checkable
class Endpoint(Protocol):
    """What a connection leads to: a server, or a model in this process."""

    @property
    def name(self) -> str:
        """By which persons know it."""

    @property
    def facts(self) -> dict[str, Any]:
        """Plain facts, as a connection has them."""

    def connect(self) -> Connection:
        """A line to it.

        Raises:
            ServerGone: it has ended.
        """
