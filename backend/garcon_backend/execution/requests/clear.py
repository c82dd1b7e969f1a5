"""Recordings forgotten: of some points, of probes of a name, or all of a session."""

from __future__ import annotations

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_jupyter.wire import requests as wire


class ClearHandler(RequestHandler[wire.Clear]):
    """Each rank forgets what it holds; snapshots keep theirs."""

    kind = wire.Clear

    def prepare(self) -> None:
        """Nothing can be wrong."""

    def run(self) -> None:
        self.rank.contexts.clear(self.request.session, self.request.points, self.request.name)
