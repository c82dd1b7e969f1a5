"""What the model loses with a dictionary in training in its place."""

from __future__ import annotations

from garcon_backend.execution.inputs import Inputs
from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.execution.training.rows import kept_tokens
from garcon_backend.execution.training.splicing import SplicedPass, loss_of
from garcon_jupyter.wire import requests as wire
from garcon_jupyter.wire.dictionary_training import LossRecovered


class MeasureTrainingHandler(RequestHandler[wire.MeasureTraining]):
    """Three forwards; the leader of the last stage answers."""

    kind = wire.MeasureTraining

    _inputs: Inputs

    def prepare(self) -> None:
        request, tools = self.request, self.tools
        self.rank.adapters.check(request.adapter)
        tools.trainings.check(request.session, request.training, request.settings)
        tools.trainings.existing(request.session, request.training, request.settings)
        self._inputs = tools.passes.batch(request.batch)
        tools.admission.check(wire.Forward(request.session, batch=request.batch, logits="all"))

    def run(self) -> LossRecovered | None:
        request, tools = self.request, self.tools
        trainer = tools.trainings.existing(request.session, request.training, request.settings)
        kept = kept_tokens(self._inputs, request.settings.left_out, tools.passes.special)
        catalog = self.rank.bound.catalog
        ends = [tuple(map(catalog.point, end)) for end in request.settings.ends]
        losses = []
        with self.rank.adapters.on(request.adapter):
            for stand in ("clean", "spliced", "ablated"):
                probed = SplicedPass(self.rank, ends, trainer, kept, stand)
                losses.append(loss_of(tools.passes, probed, self._inputs))
        clean, spliced, ablated = losses
        if clean is None or spliced is None or ablated is None:
            return None
        return LossRecovered(clean, spliced, ablated)
