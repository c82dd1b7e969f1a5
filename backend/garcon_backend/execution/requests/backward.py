"""The model run forward, a loss of the user's, and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from garcon_backend.execution.inputs import Inputs
from garcon_backend.execution.requests.probed import ProbedRequestHandler
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.points import Address
from garcon_jupyter.wire import requests as wire


class BackwardHandler(ProbedRequestHandler[wire.Backward]):
    """A backward: answered with the loss, and the gradients of named parameters."""

    kind = wire.Backward

    batch: Inputs
    loss: Callable[..., Any]
    values: list[Address]

    def prepare(self) -> None:
        request, catalog = self.request, self.rank.bound.catalog
        if request.loss is None:
            raise BadRequest("backward needs a loss function.", "loss_fn(logits) returns a scalar.")
        if request.logits not in ("all", "last"):
            raise BadRequest(
                f"A loss is given no logits {request.logits!r}.", 'Use "all" or "last".'
            )
        self.batch = self.tools.passes.batch(request.batch)
        self.admit_probes()
        self.loss = self.tools.code.load(request.loss)
        self.values = [catalog.point(name) for name in request.values]
        for name in request.parameters:
            catalog.parameter(name)

    def run_pass(self) -> Any:
        """(the loss, where the logits are; gradients of those parameters that this rank's stage holds)."""
        tools = self.tools
        return tools.passes.backward(
            self.request, self.batch, self.probes, self.loss, self.values, tools.parameters
        )

    def combine(self, parts: Sequence[Any]) -> Any:
        """(loss, gradients by name): the one loss, and the gradients of all stages."""
        loss = next((loss for loss, _ in parts if loss is not None), None)
        gradients: dict[str, Any] = {}
        for _, found in parts:
            gradients |= found
        return loss, gradients
