"""Contexts brought back to what a checkpoint has, or emptied."""

from __future__ import annotations

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.save_contexts import checkpoints
from garcon_backend.save_contexts.contexts import Exported
from garcon_jupyter.wire import requests as wire


class RestoreHandler(RequestHandler[wire.Restore]):
    """Each rank reads its own file while it prepares, so that all contexts come back, or none."""

    kind = wire.Restore

    contents: Exported

    def prepare(self) -> None:
        self.contents = checkpoints.read(self.rank.mesh.rank, self.request)

    def run(self) -> None:
        self.rank.contexts.install(self.request.session, self.contents)
