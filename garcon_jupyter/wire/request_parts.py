"""What requests are made of, and what all of them have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Code:
    """A shipped function.

    Attributes:
        payload: its cloudpickle.
        digest: sha256 of the payload, its identity.
        name: what to call it in messages.
        captured: bytes of each free variable that travels with it.
    """

    payload: bytes
    digest: str
    name: str
    captured: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class RecordingRef:
    """Where a recording is on the server: which snapshot of which save context."""

    snapshot: int
    point: str
    name: str | None = None


@dataclass(frozen=True)
class ProbeSpec:
    """A probe as it travels; see :meth:`garcon_jupyter.client.probes.ProbePoint.probe`."""

    point: str
    code: Code
    grad: bool = False
    sharded: bool = False
    merge: str | Code | None = None
    read_only: bool = False
    name: str | None = None
    params: tuple[str, ...] = ()
    source: RecordingRef | None = None


@dataclass(frozen=True)
class ProbeSet:
    """Probes by the digest of their pickle, which comes along where the server may not have them yet."""

    digest: str
    payload: bytes = b""


@dataclass(frozen=True)
class Batch:
    """Tokens to read.

    Attributes:
        ids: int64 [b, p].
        mask: bool [b, p], False at padding; None where nothing is padded.
        documents: in a run, int64 [b, p], the document that each token is from.
        offsets: in a run, int64 [b, p], its place in that document.
        step: number of the batch in its run.
        before: in a run, how many tokens came before these; None elsewhere.
    """

    ids: Any
    mask: Any = None
    documents: Any = None
    offsets: Any = None
    step: int = 0
    before: int | None = None


SPLICE_ERRORS = ("live", "frozen", "none")
"""What may become of what a dictionary's reconstruction lacks."""


@dataclass(frozen=True)
class Splice:
    """How a pass goes on through a dictionary.

    Attributes:
        dictionary: its name on the server.
        error: what its reconstruction lacks: "live", computed of the value; "frozen", a constant, on which no gradient depends;
            "none", left out.
        bypass: positions whose value goes past it, counted from 0 in each text.
    """

    dictionary: str
    error: str = "live"
    bypass: tuple[int, ...] = ()


@dataclass
class Request:
    """Base of all requests.

    Attributes:
        session: whose save contexts it touches.
        released: snapshots that the client no longer holds.
    """

    session: str = ""
    released: tuple[int, ...] = ()


@dataclass
class AdaptedRequest(Request):
    """Base of those that the model answers with an adapter on.

    Attributes:
        adapter: the name that it was launched with; None for the base model.
    """

    adapter: str | None = None
