"""The weights of the served model exchanged for those of another checkpoint of its architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.models import current_weights, fit, loading, weight_exchange
from garcon_backend.models.current_weights import CurrentWeights
from garcon_backend.process import memory
from garcon_backend.process.output import log
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.wire import requests as wire


class ExchangeWeightsHandler(RequestHandler[wire.ExchangeWeights]):
    """Each rank reads its part of the other checkpoint while it prepares: all have it then, or nothing has changed."""

    kind = wire.ExchangeWeights

    fresh: nn.Module | None = None

    def prepare(self) -> None:
        self.directory, weights = Path(self.request.path), self._current()
        if weights.are(self.directory):
            return
        dtype, trusted, mesh = weights.dtype, weights.trust_remote_code, self.rank.mesh
        weight_exchange.check_files(weights.directory, self.directory, dtype, trusted)
        fit.check_fits(self.directory, dtype, mesh.degrees, mesh.device)
        self.read = current_weights.stamps(self.directory)
        size = sum(p.numel() * p.element_size() for p in self.rank.model.parameters())
        with memory.beyond_the_limit(2 * size):
            fresh = loading.load(
                *(self.directory, mesh, dtype),
                trust_remote_code=trusted,
                family=weights.family,
                as_in=self.rank.model,
            )
        weight_exchange.check(self.rank.model, fresh, self.directory)
        self.fresh = fresh

    def _current(self) -> CurrentWeights:
        if self.rank.weights is None:
            raise BadRequest(
                "The model of this server was made by code of its own, which alone knows its weights.",
                "Launch it again with what the loader is to load.",
            )
        if self.rank.adapters.fitted:
            raise BadRequest(
                "This server has adapters, which were made for the weights that are loaded.",
                "Launch it without, or merge them into each checkpoint.",
            )
        return self.rank.weights

    def run(self) -> dict[str, Any] | None:
        rank, weights = self.rank, self._current()
        exchanged, failure = self.fresh is not None, ""
        try:
            weights.put_down(self.directory)
        except OSError as error:
            failure = f"{error.filename or weights.note}: {error.strerror or error}"
        if rank.mesh.everyone.any(bool(failure)):
            raise BadRequest(
                "The exchange of weights could not be noted, so that a lost rank would bring back others"
                f" ({failure or 'on another host'}). Those of {weights.directory} are still loaded.",
                "Make room on that disk.",
            )
        if self.fresh is not None:
            with rank.interrupts.held():
                weight_exchange.put(rank.model, self.fresh)
                weights.become(self.directory, self.read)
                rank.contexts.certificate = None  # it was of the other weights
                self.fresh = None
            if weights.note is not None:
                log(f"the weights are now those in {self.directory}")
        said = {"path": self.request.path, "exchanged": exchanged}
        return said if rank.mesh.rank == 0 else None
