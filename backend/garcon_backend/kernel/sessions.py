"""Sessions: whose save contexts a request touches, and who is there.

A session outlives its client: a restarted notebook resumes it by name. It is held by at most one living
client process at a time; on this host a process lives while its pid does, from elsewhere while it was
heard of lately. One without a name of its own, whose client is gone, is forgotten after a while with all that
it recorded, and soon where that is nothing; one with a name stays until the server ends.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from garcon_jupyter.errors import SessionInUse

REMOTE_LEASE = 90.0
"""Seconds after which a client of another host that was not heard of counts as gone."""


@dataclass
class ClientProcess:
    """What a client says of itself."""

    user: str
    host: str
    pid: int
    seen: float = field(default_factory=time.monotonic)

    @property
    def alive(self) -> bool:
        """Whether the client's process still runs."""
        if self.host != socket.gethostname():
            return time.monotonic() - self.seen < REMOTE_LEASE
        try:
            alive: bool = psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
            return alive
        except psutil.AccessDenied:
            return True
        except psutil.Error:
            return False

    @property
    def dead(self) -> bool:
        """Whether the client's process is known to have ended; of another host nobody knows."""
        return self.host == socket.gethostname() and not self.alive

    def same(self, other: ClientProcess) -> bool:
        """Whether both are one process."""
        return (self.host, self.pid) == (other.host, other.pid)


@dataclass
class SessionState:
    """A name, and the client that holds it.

    Attributes:
        named: whether it has a name by which it is found again; else it is forgotten after a while.
        since: when it was first seen that nobody holds it; None while somebody does.
        last: the client that held it last.
        changed: when it was taken or let go, in seconds since the epoch.
    """

    name: str
    client: ClientProcess | None = None
    named: bool = True
    since: float | None = None
    last: ClientProcess | None = None
    changed: float = field(default_factory=time.time)

    @property
    def held(self) -> bool:
        """Whether a living client has it."""
        return self.client is not None and self.client.alive

    def take(self, client: ClientProcess) -> None:
        """A client holds it from now on."""
        if not (self.client and client.same(self.client)):
            self.changed = time.time()
        self.client = self.last = client
        self.since = None


class Sessions:
    """All sessions of a server. Called from the control thread and from the main one."""

    def __init__(self) -> None:
        self._sessions: dict[str, SessionState] = {}
        self._lock = threading.Lock()
        self._number = 0

    def open(
        self,
        name: str | None,
        client: ClientProcess,
        prefer: str | None = None,
        lasting: bool = True,
    ) -> tuple[SessionState, bool]:
        """A session for a client.

        Args:
            name: resume this one, or make it.
            prefer: as `name`, but where another living client holds it, a fresh one instead.
            lasting: whether the client will know that name again, when its process has ended.

        Returns:
            The session, and whether it was resumed.

        Raises:
            SessionInUse: another living client holds the named session.
        """
        with self._lock:
            wanted = name or prefer
            held = self._sessions.get(wanted) if wanted else None
            if held is not None and held.held and not client.same(held.client):  # type: ignore[arg-type]
                if name:
                    other = held.client
                    assert other is not None
                    raise SessionInUse(
                        f"Session {name!r} is held by {other.user}, process {other.pid} on {other.host}.",
                        "Close that notebook, or connect with another session name.",
                    )
                wanted, held = None, None
            if held is None:
                fresh = wanted or self._fresh()
                held = self._sessions[fresh] = SessionState(fresh, named=bool(wanted) and lasting)
                held.take(client)
                return held, False
            held.take(client)
            return held, True

    def _fresh(self) -> str:
        while True:
            self._number += 1
            if (name := f"session-{self._number}") not in self._sessions:
                return name

    def leave(self, name: str, client: ClientProcess) -> None:
        """A client lets go of its session, which stays."""
        with self._lock:
            session = self._sessions.get(name)
            if session and session.client and session.client.same(client):
                session.client, session.changed = None, time.time()

    def seen(self, name: str) -> None:
        """The client of a session was heard of."""
        session = self._sessions.get(name)
        if session and session.client:
            session.client.seen = time.monotonic()

    def known(self, name: str) -> bool:
        """Whether there is a session of this name."""
        return name in self._sessions

    def user(self, name: str) -> str | None:
        """Who held a session last."""
        session = self._sessions.get(name)
        return session.client.user if session and session.client else None

    def vanished(self, name: str) -> bool:
        """Whether the client of a session has ended without letting go of it."""
        session = self._sessions.get(name)
        return session is not None and session.client is not None and session.client.dead

    def forget(
        self,
        after: float,
        now: float,
        busy: Callable[[str], bool] = lambda name: False,
        empty: Callable[[str], bool] = lambda name: False,
    ) -> list[str]:
        """Forget sessions without a name that nobody has held for so long.

        Args:
            after: seconds; 0 for never.
            now: the time, by any clock that the last call was told by.
            busy: whether something of a session goes on without a client.
            empty: whether there is nothing in a session that anybody could come back for; of such it is
                forgotten at once that they were there.

        Returns:
            Their names; what they recorded is the caller's to drop.
        """
        with self._lock:
            for session in self._sessions.values():
                if session.held or busy(session.name):
                    session.since = None
                elif session.since is None:
                    session.since = now
                    session.changed = session.changed if session.client is None else time.time()
            gone = [
                session.name
                for session in self._sessions.values()
                if not session.named
                and session.since is not None
                and ((after > 0 and now - session.since >= after) or empty(session.name))
            ]
            for name in gone:
                del self._sessions[name]
        return gone

    def found(self, name: str) -> None:
        """Know a session again that there was before the server was started anew."""
        with self._lock:
            if name not in self._sessions:
                named = re.fullmatch(r"session-\d+", name) is None
                self._sessions[name] = SessionState(name, named=named)

    def all(self) -> list[SessionState]:
        """All sessions, in the order in which they came."""
        with self._lock:
            return list(self._sessions.values())

    def living(self) -> list[SessionState]:
        """Sessions whose client lives."""
        with self._lock:
            return [session for session in self._sessions.values() if session.held]


def safe_name(text: str) -> str:
    """A session name from any text."""
    return re.sub(r"[^\w.@-]+", "-", text).strip("-") or "session"
