"""Cells of activation patching, run together."""

from __future__ import annotations

import torch

from garcon_backend.execution.inputs import Inputs
from garcon_backend.execution.patching.cell_runs import CellRuns
from garcon_backend.execution.patching.cells import checked
from garcon_backend.execution.requests.handler import RequestHandler
from garcon_jupyter.errors import BadRequest, DoesNotFit
from garcon_jupyter.wire import requests as wire


class PatchHandler(RequestHandler[wire.Patch]):
    """The leader of the last stage answers with a number for each text and each cell."""

    kind = wire.Patch

    _prepared: CellRuns

    def prepare(self) -> None:
        request, rank = self.request, self.rank
        rank.adapters.check(request.adapter)
        inputs = self.tools.passes.batch(wire.Batch(request.texts))
        cells, points = checked(request, rank.bound)
        self._check_memory(inputs, len(cells))
        metric = None if request.metric is None else self.tools.code.load(request.metric)
        if metric is None:
            self._check_answers(len(inputs.ids))
        self._prepared = CellRuns(self.tools.passes, request, inputs, cells, points, metric)

    def _check_memory(self, inputs: Inputs, cells: int) -> None:
        """Refuse a batch that does not fit, before any of it is run."""
        texts, length = inputs.ids.shape
        rows = inputs.ids[:1].expand(texts + cells, length)
        probes = tuple(wire.ProbeSpec(name, wire.Code(b"", "", "")) for name in self.request.points)
        logits = "all" if self.request.metric else "last"
        try:
            self.tools.admission.check(
                wire.Forward(batch=wire.Batch(rows), probes=probes, logits=logits)
            )
        except DoesNotFit as error:
            raise DoesNotFit(
                f"{cells} cells of {length} tokens: {error.problem}", "Give a smaller tokens=."
            ) from None

    def _check_answers(self, texts: int) -> None:
        vocabulary = self.rank.bound.catalog.sizes.get("V", 1 << 62)
        try:
            answers = torch.as_tensor(self.request.answers)
            right = (
                answers.shape == (texts, 2)
                and int(answers.min()) >= 0
                and int(answers.max()) < vocabulary
            )
        except (TypeError, ValueError, RuntimeError):
            right = False
        if not right:
            raise BadRequest(
                "A request for patches has no metric, and no two answers for each text.",
                "Give two token ids for each, or a metric.",
            )

    def run(self) -> wire.PatchedMetrics | None:
        with self.rank.adapters.on(self.request.adapter):
            return self._prepared.run()
