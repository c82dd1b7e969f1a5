"""How a recording begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from garcon_jupyter.errors import BadRequest

if TYPE_CHECKING:
    from torch.nn import Module

    from garcon_jupyter.training.recording.context import TrainingRecorder


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
    data_parallel: bool | None = None,
) -> TrainingRecorder:
    """Record a training: a context around its loop, in which each batch's data are named by ``record.data(ids)``.

    Gradients of each datum are those of its share of the batch's loss, over all of its tokens, before clipping. They are found
    for every trained parameter, from what each module read and the gradient of what it wrote; the journal says what clipping made of them. Parameters after any
    number of steps are the same, to the last bit, as without a recording.

    Args:
        model: of plain torch, one that is trained on this process; or in a DistributedDataParallel.
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
        data_parallel: whether the data are parted over all ranks of torch.distributed, which make one of their gradients as DistributedDataParallel
            does; by default whether the model is in one. All ranks record, and the first writes.

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
    from garcon_jupyter.training.recording.context import TrainingRecorder

    options = {
        **{"k": k, "units": units, "hidden": hidden or {}, "norms": norms, "dots": dots},
        **{"projection": projection, "full": full, "shares": shares, "moves": moves},
        **{"uncovered": uncovered, "batch_dim": batch_dim, "step": step, "chunk": chunk},
        "seed": seed,
        "data_parallel": data_parallel,
    }
    return TrainingRecorder(model, Path(path).expanduser(), options)
