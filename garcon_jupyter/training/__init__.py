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
``recording``    the context
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
``callbacks``    for trainers of transformers and Lightning
``opened``       a record, opened: all of these
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest

if TYPE_CHECKING:
    from torch.nn import Module

    from garcon_jupyter.training.ablation import FlipTable as FlipTable
    from garcon_jupyter.training.ablation import flips as flips
    from garcon_jupyter.training.callbacks import for_lightning as for_lightning
    from garcon_jupyter.training.callbacks import for_trainer as for_trainer
    from garcon_jupyter.training.neurons import NeuronTable as NeuronTable
    from garcon_jupyter.training.notable import NotableTable as NotableTable
    from garcon_jupyter.training.notable import by_distinct_data as by_distinct_data
    from garcon_jupyter.training.notable import by_frequency as by_frequency
    from garcon_jupyter.training.opened import TrainingRecord as TrainingRecord
    from garcon_jupyter.training.opened import open_record as open_record
    from garcon_jupyter.training.per_datum import PerDatum as PerDatum
    from garcon_jupyter.training.recording import TrainingRecorder
    from garcon_jupyter.training.steps import StepShares as StepShares

_HOMES = {
    "FlipTable": "ablation",
    "NeuronTable": "neurons",
    "NotableTable": "notable",
    "flips": "ablation",
    "for_lightning": "callbacks",
    "for_trainer": "callbacks",
    "PerDatum": "per_datum",
    "StepShares": "steps",
    "TrainingRecord": "opened",
    "open_record": "opened",
}


def record(
    model: Module,
    path: str | Path,
    k: int = 1000,
    *,
    units: Sequence[str] | None = None,
    hidden: Mapping[str, int] | None = None,
    norms: bool = True,
    dots: bool = False,
    projection: int = 0,
    full: Sequence[str] = (),
    shares: Sequence[str] = (),
    moves: bool = False,
    uncovered: Sequence[str] = (),
    batch_dim: int = 0,
    step: int | None = None,
    chunk: int = 64,
    seed: int = 0,
) -> TrainingRecorder:
    """Record a training: a context around its loop, in which each batch's data are named by ``record.data(ids)``.

    Gradients of each datum are those of its share of the batch's loss, over all of its tokens, before clipping. They are found
    for every trained parameter, from what each module read and the gradient of what it wrote; the journal says what clipping made of them. Parameters after any
    number of steps are the same, to the last bit, as without a recording.

    Args:
        model: of plain torch, one that is trained on this process.
        path: the record's directory.
        k: how many outliers of each datum are kept: the largest gradients by size, exactly.
        units: patterns of the weights among which outliers are looked for; by default all matrices outside of embedding and
            unembedding.
        hidden: by patterns of weights' names, the axis of their hidden units, where sizes and names do not tell it.
        norms: keep the norm of each parameter's gradient, for each datum.
        dots: keep the dot products of all pairs of data of a batch, over all parameters.
        projection: keep two-sided random projections with so many numbers on a side.
        full: patterns of parameters whose gradients are kept whole; ``record.bytes_per_datum`` says what that takes.
        shares: patterns of parameters whose steps are told apart, exactly: ``record.shares(name)``.
        moves: keep for each outlier also how far the datum moved the weight: its share of the step.
        uncovered: patterns of parameters that may be left out where they cannot be covered; the record lists them.
        batch_dim: the dimension of the batch in the model's inputs.
        step: go on with a record from this step, that of the trainer's checkpoint; what it has of later ones is written anew.
        chunk: how many steps are stored together.
        seed: of projections.

    Returns:
        A context; ``with`` it, the recording is on.

    Raises:
        BadRequest: the model is compiled or sharded, mixes its data, or an argument makes no sense.
        UnknownParameter: a pattern names no trained parameter.
    """
    if k < 0 or projection < 0 or chunk < 1:
        raise BadRequest(
            f"k={k}, projection={projection}, chunk={chunk} are no sizes.",
            "Give whole numbers, chunk from 1 on.",
        )
    if batch_dim not in (0, 1):
        raise BadRequest(f"batch_dim={batch_dim} is no place of a batch.", "Give 0 or 1.")
    from garcon_jupyter.training.recording import TrainingRecorder

    options = {
        **{"k": k, "units": units, "hidden": hidden or {}, "norms": norms, "dots": dots},
        **{"projection": projection, "full": full, "shares": shares, "moves": moves},
        **{"uncovered": uncovered, "batch_dim": batch_dim, "step": step, "chunk": chunk},
        "seed": seed,
    }
    return TrainingRecorder(model, Path(path).expanduser(), options)


def __getattr__(name: str) -> Any:
    """A class or function of this room; its module is imported when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = [
    "FlipTable",
    "NeuronTable",
    "NotableTable",
    "PerDatum",
    "StepShares",
    "TrainingRecord",
    "flips",
    "for_lightning",
    "for_trainer",
    "open_record",
    "record",
]
