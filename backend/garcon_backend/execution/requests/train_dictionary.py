"""The activations of a batch, given to a dictionary in training."""

from __future__ import annotations

import torch
from torch import Tensor

from garcon_backend.execution.inputs import Inputs
from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.execution.training.rows import kept_tokens, rows_of
from garcon_jupyter.activation_stores import ActivationStore, open_store
from garcon_jupyter.wire import requests as wire
from garcon_jupyter.wire.dictionary_training import TrainingSettings


class TrainDictionaryHandler(RequestHandler[wire.TrainDictionary]):
    """The ranks that have the points train; the leader of their stage answers."""

    kind = wire.TrainDictionary

    _inputs: Inputs | None = None
    _store: ActivationStore | None = None

    def prepare(self) -> None:
        request, tools = self.request, self.tools
        self.rank.adapters.check(request.adapter)
        tools.trainings.check(request.session, request.training, request.settings)
        if request.batch is None:
            return
        if request.store:
            self._store = open_store(request.store)
            return
        self._inputs = tools.passes.batch(request.batch)
        tools.admission.check(wire.Forward(request.session, batch=request.batch, logits="none"))

    def run(self) -> wire.TrainingProgress | None:
        request, trainings = self.request, self.tools.trainings
        rows = self._rows()
        trainer = trainings.of(request.session, request.training, request.settings)
        if trainer is None:
            return None
        more = False
        if request.batch is None:
            more = trainer.finish()
        else:
            trainer.take(*rows)
        if not self.rank.mesh.leads:
            return None
        merged, heard = request.heard
        curve = trainer.curve
        new = curve.points[heard if merged == curve.merged else 0 :]
        return wire.TrainingProgress(tuple(new), curve.merged, trainer.steps, more)

    def _rows(self) -> list[Tensor]:
        """What is read, and what is to be written of it, where that is something else."""
        request, trainings = self.request, self.tools.trainings
        settings = request.settings
        if self._store is not None and request.batch is not None:
            first, count = request.batch.before or 0, len(request.batch.ids)
            return self._stored(self._store, first, count)
        if self._inputs is None:
            return []
        points = trainings.points(settings)
        kept = kept_tokens(self._inputs, settings.left_out, self.tools.passes.special)
        with self.rank.adapters.on(request.adapter):
            rows = rows_of(self.tools.passes, self._inputs, points, kept)
        return _side_by_side(settings, dict(zip(settings.points, rows, strict=False)))

    def _stored(self, store: ActivationStore, first: int, count: int) -> list[Tensor]:
        settings = self.request.settings
        if not self.tools.trainings.trains_here(settings):
            return []
        names = settings.points
        read = [store.read(first, count, points=name) for name in names]
        store.expect(first + count, count, list(names))  # while this batch is trained on
        kept = torch.ones(count, dtype=torch.bool)
        for word in settings.left_out:
            if word == "special":
                kept &= ~torch.isin(read[0].token.long(), self.tools.passes.special.cpu())
            elif word == "first":
                kept &= read[0].offset != 0
            else:
                kept &= read[0].token != word
        rows = [each.activations.flatten(1)[kept].float() for each in read]
        return _side_by_side(settings, dict(zip(names, rows, strict=True)))


def _side_by_side(settings: TrainingSettings, rows: dict[str, Tensor]) -> list[Tensor]:
    """Of each token what is read at all points, and what is to be written, where that is something else; nothing where there are no rows."""
    if not rows:
        return []
    sides = [*zip(*settings.ends, strict=True)]
    chosen = sides[:1] if settings.autoencodes else sides
    return [
        torch.cat([rows[name] for name in side], 1) if len(side) > 1 else rows[side[0]]
        for side in chosen
    ]
