"""Tokens generated one after the other, with probes on every step."""

from __future__ import annotations

from garcon_backend.execution.generation import generate
from garcon_backend.execution.inputs import Inputs
from garcon_backend.execution.requests.probed import ProbedRequestHandler
from garcon_jupyter.wire import requests as wire


class GenerateHandler(ProbedRequestHandler[wire.Generate]):
    """A generation: the leader of the last stage answers."""

    kind = wire.Generate

    batch: Inputs

    def prepare(self) -> None:
        self.batch = self.tools.passes.batch(self.request.batch)
        self.admit_probes()

    def run_pass(self) -> wire.GeneratedTokens | None:
        return generate(self.tools.passes, self.request, self.batch, self.probes)
