"""What the content of each message must hold; buffers are described by :mod:`garcon_jupyter.wire.transport`.

What may be missing has a base of its own: ``Required`` is not seen where annotations are strings.
"""

from __future__ import annotations

from typing import Any, TypedDict

from garcon_jupyter.wire import protocol


class Header(TypedDict):
    """What every message says of itself."""

    msg_id: str
    msg_type: str


class ClientFacts(TypedDict, total=False):
    """What a client says of itself."""

    user: str
    host: str
    pid: int


class Hello(ClientFacts, total=False):
    """Which session it wants: this one, or if nobody holds it that one, or a fresh one; and whether it will know
    that name again."""

    protocol: Any
    python: Any
    session: str | None
    prefer: str | None
    lasting: bool


class OfSession(ClientFacts):
    """Which session is meant."""

    session: str


class _Heard(TypedDict, total=False):
    session: str
    heard: int


class OfRequest(_Heard):
    """Which request is meant, perhaps of which session, and how many of its prints were heard."""

    request: str


class _Shown(TypedDict, total=False):
    run: str
    prints: int


class OfRun(_Shown):
    """What is asked of which run of a session, and how many of its prints were heard."""

    verb: str
    session: str


class Shutdown(ClientFacts, total=False):
    """Whether to end it for others too."""

    force: bool


class Nothing(TypedDict):
    """A question that says no more than its name."""


class RequestContent(TypedDict, total=False):
    """Whose request it is, what it is called in lists, whether it stands behind those of persons, and how a large
    answer may come: by shared memory, or by the socket for data; else it comes in the reply."""

    session: str
    kind: str
    behind: bool
    same_host: bool
    by_socket: bool


class OfTransfer(TypedDict):
    """Which transfer is meant."""

    transfer: str


class Ask(OfTransfer):
    """The first of the chunks that are wanted, and how many."""

    first: int
    count: int


class Chunk(OfTransfer):
    """Which chunk it is."""

    number: int


class Offer(OfTransfer):
    """The session that it is for, and its bytes."""

    session: str
    size: int


class Refused(OfTransfer):
    """Why (:func:`garcon_jupyter.wire.failures.describe`)."""

    failure: dict[str, Any]


CONTENTS: dict[str, Any] = {
    protocol.REQUEST: RequestContent,
    protocol.HELLO: Hello,
    protocol.CANCEL: OfRequest,
    protocol.DETACH: OfRequest,
    protocol.OUTCOME: OfRequest,
    protocol.RECEIVED: OfRequest,
    protocol.REQUESTS: OfSession,
    protocol.RUN: OfRun,
    protocol.GOODBYE: OfSession,
    protocol.SHUTDOWN: Shutdown,
    protocol.ASK: Ask,
    protocol.CHUNK: Chunk,
    protocol.OFFER: Offer,
    protocol.TAKEN: OfTransfer,
    protocol.REFUSED: Refused,
}
"""By the name of the message; for what is not here any object will do."""


def of(kind: str) -> Any:
    """The type of the content of a kind of message."""
    return CONTENTS.get(kind, Nothing)
