"""What contexts hold is told that the run which it is of is over."""

from __future__ import annotations

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_jupyter.wire import requests as wire


class ConcludeHandler(RequestHandler[wire.Conclude]):
    """Each rank tells its own: a store of activations seals its last file."""

    kind = wire.Conclude

    def prepare(self) -> None:
        """Whether it can be done is seen by doing it."""

    def run(self) -> None:
        held = self.rank.contexts.export(self.request.session, self.request.contexts)
        for values, _ in held.values():
            for value in values.values():
                if callable(conclude := getattr(type(value), "conclude", None)):
                    conclude(value)
