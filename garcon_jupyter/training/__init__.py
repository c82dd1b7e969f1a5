"""Training made transparent: which datum moved which parameter, at every step.

    from garcon_jupyter import training

    with training.record(model, "run.record", k=1000) as record:
        for step, (tokens, ids) in enumerate(loader):
            loss = model(tokens, labels=tokens).loss
            loss.backward(); record.data(ids); optimizer.step(); optimizer.zero_grad()
    record.outliers(step=3, datum=17)            # [(parameter, index, gradient), …], the largest first
    training.open_record("run.record")           # later, without the model

A recording is a context around any training loop of plain torch; it needs no server, and changes no bit of the training.

Not here: what is asked of a model that a server holds (``experiments``), and reductions of its activations (``recorders``).

``gradients``  the gradient of each datum, for every parameter
``recording``  what goes on while a training is recorded
``records``    a record on disk
``questions``  what it says of data, tokens and neurons
``opened``     a record, opened: all that it can be asked
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from garcon_jupyter.training.gradients.per_datum import PerDatum as PerDatum
    from garcon_jupyter.training.opened import TrainingRecord as TrainingRecord
    from garcon_jupyter.training.opened import open_record as open_record
    from garcon_jupyter.training.questions.ablation import FlipTable as FlipTable
    from garcon_jupyter.training.questions.ablation import flips as flips
    from garcon_jupyter.training.questions.bigrams import BigramShifts as BigramShifts
    from garcon_jupyter.training.questions.bigrams import bigram_shifts as bigram_shifts
    from garcon_jupyter.training.questions.checkpoints import (
        record_checkpoints as record_checkpoints,
    )
    from garcon_jupyter.training.questions.influences import InfluenceTable as InfluenceTable
    from garcon_jupyter.training.questions.influences import influence as influence
    from garcon_jupyter.training.questions.influences import leave_out as leave_out
    from garcon_jupyter.training.questions.influences import rank_correlation as rank_correlation
    from garcon_jupyter.training.questions.neurons import NeuronTable as NeuronTable
    from garcon_jupyter.training.questions.notable import NotableTable as NotableTable
    from garcon_jupyter.training.questions.notable import by_distinct_data as by_distinct_data
    from garcon_jupyter.training.questions.notable import by_frequency as by_frequency
    from garcon_jupyter.training.recording.callbacks import for_lightning as for_lightning
    from garcon_jupyter.training.recording.callbacks import for_trainer as for_trainer
    from garcon_jupyter.training.recording.starting import record as record
    from garcon_jupyter.training.recording.steps import StepShares as StepShares

_HOMES = {
    "BigramShifts": "questions.bigrams",
    "bigram_shifts": "questions.bigrams",
    "FlipTable": "questions.ablation",
    "InfluenceTable": "questions.influences",
    "NeuronTable": "questions.neurons",
    "NotableTable": "questions.notable",
    "flips": "questions.ablation",
    "for_lightning": "recording.callbacks",
    "for_trainer": "recording.callbacks",
    "influence": "questions.influences",
    "leave_out": "questions.influences",
    "PerDatum": "gradients.per_datum",
    "StepShares": "recording.steps",
    "TrainingRecord": "opened",
    "open_record": "opened",
    "rank_correlation": "questions.influences",
    "record_checkpoints": "questions.checkpoints",
    "record": "recording.starting",
}


def __getattr__(name: str) -> Any:
    """A class or function of this room; its module is imported when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = [
    "BigramShifts",
    "FlipTable",
    "InfluenceTable",
    "NeuronTable",
    "NotableTable",
    "PerDatum",
    "StepShares",
    "TrainingRecord",
    "bigram_shifts",
    "flips",
    "for_lightning",
    "for_trainer",
    "influence",
    "leave_out",
    "open_record",
    "rank_correlation",
    "record",
    "record_checkpoints",
]
