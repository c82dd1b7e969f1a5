"""The socket for data: large values between hosts, apart from everything else.

A thread of rank 0 serves it, with sockets of its own, so that neither a model that runs nor another client waits
for it. It sends what it is asked for and never waits for anybody: a client that stopped asking costs nothing but
the tensors that its answer consists of, and those no longer than :data:`KEPT`.

What travels and how is said in :mod:`garcon_jupyter.wire.transfers`. Nothing that comes is looked at unless it was
sealed with the key, and nothing of it is ever unpickled here.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zmq

from garcon_backend.process import memory
from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import DoesNotFit, Unreachable
from garcon_jupyter.wire import contents, protocol
from garcon_jupyter.wire.checking import check_content
from garcon_jupyter.wire.codec import Buffer
from garcon_jupyter.wire.failures import describe
from garcon_jupyter.wire.transfers import (
    LARGEST_MESSAGE,
    LARGEST_TRANSFER,
    WINDOW,
    Incoming,
    Outgoing,
    opened,
    sealed,
)

KEPT = 60.0
"""Seconds after which a transfer is dropped of which nothing is asked, or comes."""

SILENCE = 10.0
"""Seconds of silence over TCP after which a connection counts as broken."""

_LOOK = 5.0
"""Seconds between two looks at what is to be dropped."""


@dataclass
class _Offered:
    """A transfer that a client may ask for.

    Attributes:
        kept: whether it belongs to an answer that is kept for whoever asks for it later.
    """

    session: str
    outgoing: Outgoing
    kept: bool = False
    heard: float = field(default_factory=time.monotonic)


@dataclass
class _Coming:
    """A transfer that a client sends.

    Attributes:
        client: where it comes from, which may change when a connection breaks.
    """

    session: str
    incoming: Incoming
    client: bytes
    heard: float = field(default_factory=time.monotonic)


class DataPlane:
    """The socket, its thread, and the transfers that are under way.

    Args:
        key: of the server.
        address: to bind, such as ``ipc://FILE`` or ``tcp://ADDRESS:*``.
        curve: (public key, secret key), where what travels is encrypted.

    Attributes:
        address: where it listens.
    """

    def __init__(self, key: bytes, address: str, curve: tuple[bytes, bytes] | None = None) -> None:
        self._key = key
        self._offered: dict[str, _Offered] = {}
        self._coming: dict[str, _Coming] = {}
        self._lock = threading.Lock()
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._bound(address, curve)
        self.address = self._socket.last_endpoint.decode()
        self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="data")
        self._thread.start()

    def _bound(self, address: str, curve: tuple[bytes, bytes] | None) -> Any:
        sock = self._context.socket(zmq.ROUTER)
        sock.linger = 0
        sock.router_mandatory = True  # what cannot be sent is told, and not dropped in silence
        sock.sndhwm = sock.rcvhwm = 4 * WINDOW
        sock.maxmsgsize = LARGEST_MESSAGE
        if address.startswith("tcp"):
            sock.heartbeat_ivl, sock.heartbeat_timeout = int(SILENCE * 250), int(SILENCE * 1000)
        if curve:
            sock.curve_server = True
            sock.curve_publickey, sock.curve_secretkey = curve
        sock.bind(address)
        return sock

    def close(self) -> None:
        """End the thread."""
        self._context.term()
        self._thread.join()

    # -- what the kernel does with it: any thread ----------------------------------------------

    def offer(self, session: str, outgoing: Outgoing) -> str:
        """Let clients ask for a transfer; its name."""
        name = secrets.token_hex(16)
        with self._lock:
            self._offered[name] = _Offered(session, outgoing)
        return name

    def keep(self, name: str) -> None:
        """Drop a transfer only when it is let go of."""
        if offered := self._offered.get(name):
            offered.kept = True

    def let_go(self, name: str) -> None:
        """Drop a transfer."""
        with self._lock:
            self._offered.pop(name, None)

    def claim(self, name: str) -> memoryview | None:
        """The bytes of a transfer that a client has sent, once; None where they did not come."""
        with self._lock:
            coming = self._coming.get(name)
            if coming is None or not coming.incoming.whole:
                return None
            del self._coming[name]
        return coming.incoming.memory

    def leave(self, session: str) -> None:
        """The client of a session is gone: drop what was under way between it and the server."""
        self._drop(lambda one: one.session == session)

    def _drop(self, which: Callable[[_Offered | _Coming], bool]) -> None:
        with self._lock:
            for name, offered in list(self._offered.items()):
                if which(offered) and not offered.kept:
                    del self._offered[name]
            for name, coming in list(self._coming.items()):
                if which(coming):
                    del self._coming[name]

    # -- the thread ----------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while True:
                if self._socket.poll(int(_LOOK * 1000)):
                    self._hear()
                if time.monotonic() - self._looked > _LOOK:
                    self._drop_old()
        except zmq.ContextTerminated:
            self._socket.close()

    def _drop_old(self) -> None:
        self._looked = time.monotonic()
        self._drop(lambda one: self._looked - one.heard > KEPT)

    def _hear(self) -> None:
        """Take one message; whatever it is, the next one will be heard."""
        client, frame = self._socket.recv(), self._socket.recv()
        header: dict[str, Any] | None = None
        try:
            header = opened(self._key, frame)
            if header is not None:
                self._heed(client, header)
        except zmq.ContextTerminated:
            raise
        except Exception as error:  # noqa: BLE001 - nothing that comes may end the thread
            name = header.get("transfer") if header else None
            if isinstance(name, str):
                self._say(client, protocol.REFUSED, name, failure=describe(error))
        while self._socket.rcvmore:
            self._socket.recv()

    def _heed(self, client: bytes, header: dict[str, Any]) -> None:
        verb = header.get("verb")
        check_content(header, contents.of(str(verb)), LARGEST_TRANSFER)
        if verb == protocol.ASK:
            self._give(client, header)
        elif verb == protocol.OFFER:
            self._admit(client, header)
        elif verb == protocol.CHUNK:
            self._receive(client, header)
        elif verb == protocol.TAKEN:
            self._end(header["transfer"])

    def _give(self, client: bytes, header: dict[str, Any]) -> None:
        """Send the chunks that are asked for, as far as there is room on the way."""
        name = header["transfer"]
        offered = self._offered.get(name)
        if offered is None:
            raise Unreachable(
                f"The server no longer has this answer: nobody asked for it in {KEPT:.0f} seconds.",
                "Ask again: what was recorded is still there.",
            )
        offered.heard = time.monotonic()
        first, outgoing = header["first"], offered.outgoing
        for number in range(first, min(first + min(header["count"], WINDOW), len(outgoing))):
            chunk = outgoing.chunk(number)
            if not self._say(client, protocol.CHUNK, name, chunk, number=number):
                return  # it will be asked for again

    def _admit(self, client: bytes, header: dict[str, Any]) -> None:
        """A client has something; one whose connection broke says so again.

        Raises:
            DoesNotFit: there is no room for it.
        """
        name = header["transfer"]
        coming = self._coming.get(name)
        if coming is None:
            self._check_room(header["size"])
            coming = _Coming(header["session"], Incoming(header["size"]), client)
            with self._lock:
                self._coming[name] = coming
        coming.client = client
        coming.incoming.ask_again()
        self._ask_on(name, coming)

    def _check_room(self, size: int) -> None:
        promised = sum(coming.incoming.lacking for coming in list(self._coming.values()))
        there = max(0, memory.left() - promised)
        if size > there:
            raise DoesNotFit(
                f"The server has no room for {sized(size)} that were to be sent; {sized(there)} are free.",
                "Send less at once.",
            )

    def _receive(self, client: bytes, header: dict[str, Any]) -> None:
        """Receive a chunk into its place."""
        name, number = header["transfer"], header["number"]
        coming = self._coming.get(name)
        place = coming.incoming.place(number) if coming else None
        if coming is None or place is None or not self._socket.rcvmore:
            return
        if self._socket.recv_into(place) == place.nbytes:
            coming.incoming.arrived(number)
        coming.client, coming.heard = client, time.monotonic()
        self._ask_on(name, coming)

    def _ask_on(self, name: str, coming: _Coming) -> None:
        """Ask for what is wanted next; or say that all is there."""
        while run := coming.incoming.wanted():
            self._say(coming.client, protocol.ASK, name, first=run[0], count=run[1])
        if coming.incoming.whole:
            self._say(coming.client, protocol.TAKEN, name)

    def _end(self, name: str) -> None:
        """A client has, or no longer wants, what was offered; or does not send what it began."""
        with self._lock:
            offered, coming = self._offered.get(name), self._coming.get(name)
            if offered and not offered.kept:
                del self._offered[name]
            if coming:
                del self._coming[name]

    def _say(
        self, client: bytes, verb: str, name: str, chunk: Buffer | None = None, **more: Any
    ) -> bool:
        """Send a message if there is room on the way; whether it was sent."""
        header = sealed(self._key, {"verb": verb, "transfer": name, **more})
        frames: list[Any] = [client, header] if chunk is None else [client, header, chunk]
        with contextlib.suppress(zmq.ZMQError):
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
            return True
        return False
