"""A dictionary let go of."""

from __future__ import annotations

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_jupyter.errors import UnknownName
from garcon_jupyter.wire import requests as wire


class UnloadDictionaryHandler(RequestHandler[wire.UnloadDictionary]):
    """Every rank lets go of its part."""

    kind = wire.UnloadDictionary

    def prepare(self) -> None:
        there = self.rank.dictionaries.by_name
        if self.request.name not in there:
            raise UnknownName.among(
                "dictionary", self.request.name, there, "rmodel.dictionaries lists those loaded."
            )

    def run(self) -> str | None:
        rank = self.rank
        with rank.interrupts.held():
            rank.dictionaries.let_go(self.request.name)
            rank.bound.catalog.dictionaries.pop(self.request.name, None)
        return self.request.name if rank.mesh.rank == 0 else None
