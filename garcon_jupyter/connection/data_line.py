"""The line for data to one server: large values, where there is no shared memory.

It is apart from the channels, so that they stay free, also for others. What is fetched is received into its own
memory; what is sent goes straight from the tensors, as the server asks for it. A connection that falls silent
is made anew, and the transfer goes on with the chunks that are lacking (:mod:`garcon_jupyter.wire.transfers`).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import zmq

from garcon_jupyter.amounts import sized
from garcon_jupyter.connection.deferred_interrupts import Patience
from garcon_jupyter.connection.progress import Amount
from garcon_jupyter.errors import BadRequest, Interrupted, Unreachable
from garcon_jupyter.wire import contents, protocol
from garcon_jupyter.wire.checking import check_content
from garcon_jupyter.wire.failures import revive
from garcon_jupyter.wire.transfers import (
    CHUNK,
    LARGEST_TRANSFER,
    WINDOW,
    Incoming,
    Outgoing,
    opened,
    sealed,
)

RETRY = 2.0
"""Seconds of silence after which the connection is made anew."""

GIVE_UP = 20.0
"""Seconds of silence after which a transfer fails."""

_TICK = 250
"""Milliseconds between two looks at whether the server still lives."""


class DataLine:
    """Moves transfers, one at a time. Safe to use from several threads.

    Args:
        key: of the server.
        connect: makes a connected DEALER.
        patience: keeps interrupts away where they would do harm.
        check_alive: raises where the server has ended, or starts anew.
    """

    def __init__(
        self,
        key: bytes,
        connect: Callable[[], zmq.Socket[bytes]],
        patience: Patience,
        check_alive: Callable[[], None],
    ) -> None:
        self._key, self._connect, self._check_alive = key, connect, check_alive
        self._patience = patience
        self._lock = threading.RLock()
        self._socket: zmq.Socket[bytes] | None = None
        self._heard = self._renewed = 0.0

    def take(self, transfer: str, size: int, into: memoryview | None = None) -> memoryview:
        """Fetch a transfer; its bytes.

        Args:
            into: memory to receive into, if it is of that size.

        Raises:
            DoesNotFit: there is no memory for it.
            Unreachable: the server no longer has it, or fell silent.
            Interrupted: the user did not want it any more.
            ServerGone: the server ended.
        """
        fits = into is not None and into.nbytes == size
        incoming = Incoming(size, into if fits else None)
        with self._moving(transfer, "fetching", size) as amount:
            while not incoming.whole:
                while run := incoming.wanted():
                    self._say(protocol.ASK, transfer, first=run[0], count=run[1])
                header = self._hear(transfer, incoming.ask_again)
                if header and header["verb"] == protocol.CHUNK:
                    self._receive(header["number"], incoming)
                amount.at(size - incoming.lacking)
            self._say(protocol.TAKEN, transfer)
        return incoming.memory

    def give(self, session: str, outgoing: Outgoing) -> str:
        """Send a transfer, which the server asks for; its name.

        Raises:
            DoesNotFit: the server has no room for it; nothing was sent.
            Unreachable: the server fell silent.
            Interrupted: the user did not want it any more.
            ServerGone: the server ended.
        """
        transfer = secrets.token_hex(16)

        def offer() -> None:
            self._say(protocol.OFFER, transfer, session=session, size=outgoing.size)

        with self._moving(transfer, "sending", outgoing.size) as amount:
            offer()
            while True:
                header = self._hear(transfer, offer)
                if header and header["verb"] == protocol.TAKEN:
                    return transfer
                if header and header["verb"] == protocol.ASK:
                    end = min(header["first"] + min(header["count"], WINDOW), len(outgoing))
                    for number in range(header["first"], end):
                        self._say(protocol.CHUNK, transfer, outgoing.chunk(number), number=number)
                    amount.at(min(end * CHUNK, outgoing.size))

    @contextmanager
    def _moving(self, transfer: str, doing: str, size: int) -> Iterator[Amount]:
        """One transfer goes on; where it breaks off, the server is told, and nothing of it comes later."""
        with self._lock, self._patience:
            self._heard = self._renewed = time.monotonic()
            amount = Amount(doing, size)
            try:
                yield amount
            except BaseException as error:
                self._say(protocol.TAKEN, transfer)
                self._hang_up()
                if isinstance(error, KeyboardInterrupt):
                    raise Interrupted(
                        f"You interrupted {doing} {sized(size)}.", "Nothing else was lost."
                    ) from None
                raise
            finally:
                amount.end()

    def _hear(self, transfer: str, again: Callable[[], None]) -> dict[str, Any] | None:
        """The next message about a transfer; None where something else came, or nothing for a moment.

        Args:
            again: is called when the connection was made anew.
        """
        sock = self._connected()
        if self._patience.wait(sock.poll, _TICK):
            header = self._header(sock.recv())
            if header and header["transfer"] == transfer:
                self._heard = self._renewed = time.monotonic()
                if header["verb"] == protocol.REFUSED:
                    raise revive(header["failure"])
                return header
            self._skip()
            return None
        self._check_alive()
        now = time.monotonic()
        if now - self._heard > GIVE_UP:
            raise Unreachable(
                f"The server has sent no data for {GIVE_UP:.0f} seconds.",
                "Try again: what was recorded is still there.",
            )
        if now - self._renewed > RETRY:
            self._renewed = now
            self._hang_up()
            again()
        return None

    def _header(self, frame: bytes) -> dict[str, Any] | None:
        """The header of a message; None where it is none of the server's."""
        try:
            header = opened(self._key, frame)
            if header is not None:
                check_content(header, contents.of(header["verb"]), LARGEST_TRANSFER)
        except (BadRequest, KeyError, ValueError):
            return None
        return header

    def _receive(self, number: int, incoming: Incoming) -> None:
        """Receive the chunk that follows a header into its place."""
        sock = self._connected()
        place = incoming.place(number)
        if place is not None and sock.rcvmore and sock.recv_into(place) == place.nbytes:
            incoming.arrived(number)
        self._skip()

    def _skip(self) -> None:
        """Leave the rest of a message."""
        sock = self._connected()
        while sock.rcvmore:
            sock.recv()

    def _say(self, verb: str, transfer: str, chunk: Any = None, **more: Any) -> None:
        header = sealed(self._key, {"verb": verb, "transfer": transfer, **more})
        frames = [header] if chunk is None else [header, chunk]
        self._connected().send_multipart(frames, copy=False)

    def _connected(self) -> zmq.Socket[bytes]:
        if self._socket is None:
            self._socket = self._connect()
        return self._socket

    def _hang_up(self) -> None:
        """Forget all that is on its way."""
        if self._socket is not None:
            self._socket.close(linger=int(RETRY * 1000))
            self._socket = None
