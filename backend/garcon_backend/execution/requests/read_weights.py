"""A function of the weights, called where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.execution.whole_weights import WholeWeights
from garcon_backend.process.user_code import UserFailure
from garcon_jupyter.errors import BadRequest, GarconError
from garcon_jupyter.wire import requests as wire


class ReadWeightsHandler(RequestHandler[wire.ReadWeights]):
    """Each rank calls the function with the same weights, and answers with what it returns."""

    kind = wire.ReadWeights

    _function: Callable[[WholeWeights], Any]

    def prepare(self) -> None:
        self.rank.adapters.check(self.request.adapter)
        if self.request.function is None:
            raise BadRequest("There is no function of the weights.", "Give one.")
        self._function = self.tools.code.load(self.request.function)

    def run(self) -> list[Any]:
        rank, request = self.rank, self.request
        assert request.function is not None
        weights = WholeWeights(self.tools.parameters, rank.interrupts)
        with torch.no_grad(), rank.adapters.on(request.adapter):
            try:
                return [self._function(weights)]
            except (GarconError, MemoryError, RuntimeError, OSError):
                raise  # the model's, or the machine's
            except Exception as error:  # noqa: BLE001 - code that came may raise anything
                raise UserFailure(error, request.function.name) from None

    def combine(self, parts: Sequence[Any]) -> list[Any]:
        """What all ranks returned."""
        return [value for part in parts for value in part]
