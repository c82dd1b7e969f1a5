"""Noticing, over hosts, that a rank was lost.

On one host torch's launcher ends all ranks with the first. Over hosts it only sees its own: an idle rank
would wait for ever for commands of a rank 0 that is gone, and rank 0 for an answer of a rank that is
gone. So each rank subscribes to its own name at rank 0. ZMQ tells a publisher (XPUB) who subscribes, and
withdraws the subscription when the connection ends, be it by a signal, by a cut cable (heartbeats) or by
a host that lost its power. The others watch their connection to rank 0 in turn.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

WELCOME_TIME = 120_000
"""Milliseconds in which rank 0 answers a rank."""

PARTING_TIME = 10.0
"""Seconds that rank 0 gives the others to go."""

_CAME = 1


class Liveness:
    """Who is there, from one rank's side."""

    def __init__(self, sock: Any, lost: Callable[[str], None]) -> None:
        self._socket, self._lost = sock, lost
        self._parting = threading.Event()
        self._alone = threading.Event()

    @classmethod
    def of_rank_zero(cls, sock: Any, lost: Callable[[str], None]) -> Liveness:
        """On the XPUB socket of rank 0: `lost` is told the name of a rank that was lost."""
        liveness = cls(sock, lost)
        sock.xpub_verboser = True  # each subscription, even where names should repeat
        threading.Thread(target=liveness._receive_guests, daemon=True, name="liveness").start()
        return liveness

    @classmethod
    def of_other(cls, sock: Any, rank: int, lost: Callable[[str], None]) -> Liveness:
        """On the SUB socket of another rank, before it connects."""
        liveness = cls(sock, lost)
        sock.subscribe(f"rank {rank} on {socket.gethostname()}".encode())
        monitor = sock.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        threading.Thread(
            target=liveness._watch_host, args=(monitor,), daemon=True, name="liveness"
        ).start()
        return liveness

    def _receive_guests(self) -> None:
        there: set[bytes] = set()
        while True:
            said = self._socket.recv()
            came, who = said[0] == _CAME, said[1:]
            if came:
                there.add(who)
                self._socket.send(who)
            elif who in there:
                there.remove(who)
                if not self._parting.is_set():
                    self._lost(who.decode())
                elif not there:
                    self._alone.set()

    def _watch_host(self, monitor: Any) -> None:
        while True:
            recv_monitor_message(monitor)
            if not self._parting.is_set():
                self._lost("rank 0")

    def await_welcome(self) -> None:
        """Wait until rank 0 has noticed this rank.

        Raises:
            TimeoutError: it does not answer.
        """
        if not self._socket.poll(WELCOME_TIME):
            raise TimeoutError("rank 0 does not answer on its link")
        self._socket.recv()

    def part(self) -> None:
        """From now on nobody is lost; another rank than rank 0 goes."""
        self._parting.set()
        if self._socket.socket_type == zmq.SUB:
            self._socket.close(linger=0)

    def await_parting(self) -> None:
        """Wait until all others have gone, within reason."""
        self._alone.wait(PARTING_TIME)
