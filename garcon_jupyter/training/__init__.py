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

``capture``      hooks that keep what modules read, and the gradients of what they wrote
``layouts``      which positions of a batch belong to which datum
``rules``        from there to the gradients of products, tables and norms
``replay``       every other module is run again
``sites``        a gradient at one place of use, by its factors
``coverage``     whether what was seen is all of the gradient
``reading``      all of these, for a batch
``per_datum``    the gradients of a batch, by datum
``outliers``     the largest entries, exactly
``projections``  two-sided random projections
``steps``        what an optimizer makes of gradients: shares of a step
``keeping``      what is kept of each datum
``ranks``        a training of several processes: one writes
``recording``    the context
``starting``     how one begins
``axes``         which axis of a weight has the neurons
``files``        streams and a journal
``chunks``       outliers on disk
``writing``      a record, written
``records``      a record on disk: journal, data, outliers
``tables``       outliers as columns
``exports``      in the layouts that others read
``neurons``      what a record knows of neurons and heads
``notable``      the tokens of the data that moved them
``ablation``     what they do to predictions
``checkpoints``  a series of checkpoints, without a training
``influences``   of data on queries, and the truth by leaving out
``callbacks``    for trainers of transformers and Lightning
``opened``       a record, opened: all of these
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from garcon_jupyter.training.ablation import FlipTable as FlipTable
    from garcon_jupyter.training.ablation import flips as flips
    from garcon_jupyter.training.callbacks import for_lightning as for_lightning
    from garcon_jupyter.training.callbacks import for_trainer as for_trainer
    from garcon_jupyter.training.checkpoints import record_checkpoints as record_checkpoints
    from garcon_jupyter.training.influences import InfluenceTable as InfluenceTable
    from garcon_jupyter.training.influences import influence as influence
    from garcon_jupyter.training.influences import leave_out as leave_out
    from garcon_jupyter.training.influences import rank_correlation as rank_correlation
    from garcon_jupyter.training.neurons import NeuronTable as NeuronTable
    from garcon_jupyter.training.notable import NotableTable as NotableTable
    from garcon_jupyter.training.notable import by_distinct_data as by_distinct_data
    from garcon_jupyter.training.notable import by_frequency as by_frequency
    from garcon_jupyter.training.opened import TrainingRecord as TrainingRecord
    from garcon_jupyter.training.opened import open_record as open_record
    from garcon_jupyter.training.per_datum import PerDatum as PerDatum
    from garcon_jupyter.training.starting import record as record
    from garcon_jupyter.training.steps import StepShares as StepShares

_HOMES = {
    "FlipTable": "ablation",
    "InfluenceTable": "influences",
    "NeuronTable": "neurons",
    "NotableTable": "notable",
    "flips": "ablation",
    "for_lightning": "callbacks",
    "for_trainer": "callbacks",
    "influence": "influences",
    "leave_out": "influences",
    "PerDatum": "per_datum",
    "StepShares": "steps",
    "TrainingRecord": "opened",
    "open_record": "opened",
    "rank_correlation": "influences",
    "record_checkpoints": "checkpoints",
    "record": "starting",
}


def __getattr__(name: str) -> Any:
    """A class or function of this room; its module is imported when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = [
    "FlipTable",
    "InfluenceTable",
    "NeuronTable",
    "NotableTable",
    "PerDatum",
    "StepShares",
    "TrainingRecord",
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
