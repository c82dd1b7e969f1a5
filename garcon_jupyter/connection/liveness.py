"""Whether a server still lives: what is done where it has ended, hangs, or is started anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from garcon_jupyter.connection.connection_file import process_lives, read_connection_file, version
from garcon_jupyter.connection.data_line import DataLine
from garcon_jupyter.connection.deferred_interrupts import Patience
from garcon_jupyter.connection.route import Route
from garcon_jupyter.connection.sockets import Sockets
from garcon_jupyter.errors import BadConnectionFile, NotConnected, ServerGone, ServerRestarted

ANSWER_TIME = 20.0
"""Seconds in which a living server answers a question on its control channel."""

RESTART_TIME = 1800.0
"""Seconds in which a server that lost a rank has loaded its model again."""

TICK = 0.25
"""Seconds between two looks at whether the server still lives."""

_BURIAL_TIME = 5.0
"""Seconds in which the supervisor of a lost server says why it was lost."""


class WatchedSockets(Sockets):
    """Sockets that follow a server which is started anew, and know an error for every way in which it can be gone.

    Args:
        file: the connection file.
        why_gone: tells why the server ended, when it has.
        route: by which it is reached, if by one that can be lost.
    """

    def __init__(self, file: Path, why_gone: Callable[[], str], route: Route | None) -> None:
        self._why_gone = why_gone
        self._route = route
        self._request_lock = threading.RLock()
        self._control_lock = threading.RLock()
        self._patience = Patience()
        self._closed = False
        super().__init__(file)

    def _open(self) -> None:
        super()._open()
        self._data = DataLine(
            self.info["key"].encode(), self._connect_for_data, self._patience, self._check_alive
        )

    def follow(self, tell: Callable[[str], None] | None = None) -> None:
        """Connect anew where the server was started anew; free where nothing happened.

        Args:
            tell: is told that the server is being started anew, and that it is waited for. Without it,
                that is an error.

        Raises:
            NotConnected: this connection is closed, or another process's.
            ServerRestarted: it is being started anew, and nobody is to wait.
            ServerGone: it has ended.
        """
        self._check_usable()
        if not self._has_changed():
            return
        with self._request_lock, self._control_lock:
            if reason := self._news():
                if tell is None:
                    raise self._restarts(reason)
                tell(f"the server starts anew, because {reason}")
                self._await_restart()
            if version(self._file) == self._version:
                return
            self._disconnect()
            self._open()

    def _has_changed(self) -> bool:
        """Whether the connection file is another than it was, or says that the server is being started anew."""
        return version(self._file) != self._version or bool(self.facts.get("restarting"))

    def _check_usable(self) -> None:
        """Refuse a connection that cannot be used here; touches no socket and no lock.

        Raises:
            NotConnected: it was closed, or this process is a fork of its own.
        """
        name = self.facts["name"]
        if not self.mine:
            raise NotConnected(
                f"This connection to {name!r} is that of process {self._owner}, which was forked: its sockets cannot "
                "be used here.",
                f'Connect in this process: rmodel = garcon.connect("{name}").',
            )
        if self._closed:
            raise NotConnected(
                f"This connection to {name!r} was closed.",
                f'garcon.connect("{name}", session=…) goes on in its session, which stays on the server.',
            )

    def _news(self) -> str:
        """Why the server is being started anew, or nothing.

        Raises:
            ServerGone: it has ended.
        """
        try:
            news: str = read_connection_file(self._file)["garcon"].get("restarting", "")
            return news
        except BadConnectionFile:
            if self._file.exists():
                raise
            raise self._ended() from None

    def _await_restart(self) -> None:
        end = time.monotonic() + RESTART_TIME
        while self._news():
            if time.monotonic() > end:
                raise self._hangs()
            if self.same_host and not process_lives(self.facts["supervisor"]):
                raise self._ended()
            time.sleep(TICK / 5)

    def _check_alive(self) -> None:
        """Raise if the server's process is gone; on another host, if it took its file away.

        Raises:
            ServerRestarted: a rank was lost, and the server starts anew.
            ServerGone: it has ended.
        """
        if self.same_host and process_lives(self.facts["pid"]):
            return
        if not self.same_host and version(self._file) == self._version:
            return
        end = time.monotonic() + _BURIAL_TIME
        while self._file.exists() and time.monotonic() < end:
            if self.same_host and not self._supervised:  # nobody is left to say more
                break
            found = read_connection_file(self._file)["garcon"]
            if reason := found.get("restarting"):
                raise self._restarts(reason)
            if found["launched"] != self.facts["launched"]:
                raise self._restarts(found.get("lost") or "a rank was lost")
            time.sleep(0.02)
        raise self._ended()

    def _restarts(self, reason: str) -> ServerRestarted:
        return ServerRestarted(
            f"Server {self.facts['name']!r} starts anew, because {reason}.",
            "Run the cell again: it waits until the model is loaded. "
            "What finished requests saved is kept.",
        )

    def _ended(self) -> ServerGone:
        if self._route and (lost := self._route.loss()):
            return lost
        return ServerGone(
            f"Server {self.facts['name']!r} has ended: {self._why() or 'reason unknown'}.",
            "Run the launch cell again; garcon logs shows what it wrote.",
        )

    def _why(self) -> str:
        """Why the server ended; its supervisor, which outlives it, needs a moment to say so."""
        end = time.monotonic() + _BURIAL_TIME
        while self._supervised and time.monotonic() < end:
            time.sleep(0.05)
        return self._why_gone()

    @property
    def _supervised(self) -> bool:
        return self.same_host and process_lives(self.facts["supervisor"])

    def _hangs(self) -> ServerGone:
        name = self.facts["name"]
        return ServerGone(
            f"Server {name!r} has not answered for {ANSWER_TIME:.3g} seconds.",
            f"It may hang: garcon stop --force {name} ends it.",
        )
