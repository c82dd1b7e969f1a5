"""One server for a whole fleet, whose weights are exchanged: each member is loaded when it is asked something.

Every member has a session of its own on that server, so that its recordings are its own, stay when another is loaded, and are
found again when the kernel was restarted. Which weights are loaded is never remembered here: before each request that
computes, the server is told which are meant, and does nothing where it has them.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from garcon_jupyter.client import resuming
from garcon_jupyter.connection import prints
from garcon_jupyter.errors import GarconError
from garcon_jupyter.model import RemoteModel
from garcon_jupyter.servers.server import Server
from garcon_jupyter.wire import requests as wire

CONNECTED = 16
"""Members that stay connected; of more, those that were asked longest ago hang up where nobody holds them."""

WITHOUT_WEIGHTS = (
    *(wire.Snapshot, wire.Fetch, wire.Clear, wire.Drop),
    *(wire.Checkpoint, wire.Restore),
)
"""Requests that are about what is recorded, whatever is loaded."""

_Identity = tuple[Any, ...]
_SESSIONS: dict[_Identity, dict[str, str]] = {}
"""The sessions that this process has had on a server, by label."""
_LOCKS: dict[_Identity, threading.RLock] = {}
"""Held from an exchange to the end of what was asked of those weights."""

os.register_at_fork(after_in_child=_SESSIONS.clear)
os.register_at_fork(after_in_child=_LOCKS.clear)


class MemberInTurn(RemoteModel):
    """A member of a fleet in turn: as any model, with its weights loaded before it computes.

    Attributes:
        label: of the member.
        path: of its checkpoint.
    """

    def __init__(self, shared: SharedServer, label: str) -> None:
        self.label, self.path, self._shared = label, shared.paths[label], shared
        wish = shared.wished(label)
        super().__init__(shared.server, prefer=wish.name, lasting=wish.lasting)

    def _greet(self, session: str | None, prefer: str | None = None, lasting: bool = True) -> None:
        super()._greet(session, prefer, lasting)
        self.facts = {**self.facts, "path": str(self.path)}
        self._shared.sessions[self.label] = self.session

    @contextlib.contextmanager
    def _computing(self, request: wire.Request | None = None) -> Iterator[None]:
        if isinstance(request, WITHOUT_WEIGHTS):
            yield
            return
        with self._shared.lock:
            self._send(self._shared.exchange(self), prints.plain, None)
            yield


class SharedServer(Mapping[str, RemoteModel]):
    """The server of a fleet in turn, and its members by label, each connected when it is first asked for.

    Attributes:
        server: the one.
        paths: of the checkpoints by label.
        sessions: of members by label, of all fleets of this process that the server has.
        lock: held while the weights of one member are needed.
    """

    def __init__(self, server: Server, paths: Mapping[str, Path]) -> None:
        self.server, self.paths = server, dict(paths)
        identity = (server.name, server.facts["host"], server.facts["supervisor"])
        self.sessions = _SESSIONS.setdefault(identity, {})
        self.lock = _LOCKS.setdefault(identity, threading.RLock())
        self._models: OrderedDict[str, MemberInTurn] = OrderedDict()

    def __getitem__(self, label: str) -> MemberInTurn:
        with self.lock:
            model = self._models.get(label)
            if model is None or model.closed:
                model = self._models[label] = MemberInTurn(self, label)
            self._models.move_to_end(label)
            while len(self._models) > CONNECTED:
                self._models.popitem(last=False)
            return model

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def wished(self, label: str) -> resuming.WishedSession:
        """The session that a member would like to have."""
        if label in self.sessions:
            return resuming.WishedSession(self.sessions[label], resuming.own(self.server).lasting)
        wish = resuming.own(self.server)
        return (
            wish
            if wish.name is None
            else resuming.WishedSession(f"{wish.name}:{label}", wish.lasting)
        )

    def exchange(self, member: MemberInTurn) -> wire.ExchangeWeights:
        """The request that has a member's weights loaded."""
        sharing = tuple(self.sessions.values())
        return wire.ExchangeWeights(session=member.session, path=str(member.path), sharing=sharing)

    def loaded(self) -> str | None:
        """The label of the member whose weights the server has, as it says; None where it has others."""
        model = next(reversed(self._models.values()), None) or self[next(iter(self))]
        path = model.status()["weights"]
        return next((label for label, each in self.paths.items() if str(each) == path), None)

    def in_order(self, labels: list[str]) -> list[str]:
        """Labels so that the one whose weights are loaded comes first, which spares an exchange."""
        first = None
        with contextlib.suppress(GarconError):  # each member will say why it cannot be asked
            first = self.loaded()
        return sorted(labels, key=lambda label: label != first)

    def close(self) -> None:
        """Hang up; the server, and the sessions on it, stay."""
        while self._models:
            self._models.popitem()[1].close()
