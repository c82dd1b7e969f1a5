"""A session forgotten whole, when its client is gone for good."""

from __future__ import annotations

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_jupyter.wire import requests as wire


class DropHandler(RequestHandler[wire.Drop]):
    """Each rank forgets recordings, snapshots and trainings of the session."""

    kind = wire.Drop

    def prepare(self) -> None:
        """Nothing can be wrong."""

    def run(self) -> None:
        self.rank.contexts.drop(self.request.session)
        self.tools.trainings.drop(self.request.session)
