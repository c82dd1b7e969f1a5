"""A parameter by its name, or a slice of it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_jupyter.wire import requests as wire


class GetParameterHandler(RequestHandler[wire.GetParameter]):
    """The leader of the stage that holds it answers; all ranks gather."""

    kind = wire.GetParameter

    def prepare(self) -> None:
        self.rank.adapters.check(self.request.adapter)
        self.rank.bound.catalog.parameter(self.request.name)

    def run(self) -> Tensor | None:
        with self.rank.adapters.on(self.request.adapter):
            return self.tools.parameters.cut(self.request.name, self.request.index)

    def pack(self, value: Any, by_socket: bool) -> Any:
        """In memory of its own where it travels by and by: others may change weights in place meanwhile."""
        return value.clone() if by_socket and value is not None else value
