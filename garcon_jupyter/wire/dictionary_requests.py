"""Requests about dictionaries: loaded, read and trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from garcon_jupyter.wire.dictionary_training import TrainingPoint, TrainingSettings
from garcon_jupyter.wire.request_parts import (
    AdaptedRequest,
    Batch,
    Request,
)


def _nothing_to_train() -> TrainingSettings:
    return TrainingSettings("topk", 1, "", "")


@dataclass
class TrainDictionary(AdaptedRequest):
    """Give the activations of a batch to a dictionary in training; answer with :class:`TrainingProgress`.

    Attributes:
        training: the run that it is of.
        settings: what is trained.
        batch: that is read; None where no more come, for a step on what waits in the buffer.
        store: directory of a store whose rows the batch is, from `before` on, in place of the model's activations.
        heard: of the answer before, how often its curve was thinned, and its points.
    """

    training: str = ""
    settings: TrainingSettings = field(default_factory=_nothing_to_train)
    batch: Batch | None = None
    store: str = ""
    heard: tuple[int, int] = (0, 0)
    seed: int = 0


@dataclass(frozen=True)
class TrainingProgress:
    """What a batch of a training came to.

    Attributes:
        points: of its curve, since those that were heard; all of them, where it was thinned since.
        merged: how often it was thinned.
        steps: done.
        more: whether batches wait in the buffer, when no more data comes.
    """

    points: tuple[TrainingPoint, ...]
    merged: int
    steps: int
    more: bool = False


@dataclass
class MeasureTraining(AdaptedRequest):
    """What the model loses with a dictionary in training in its place; answer with
    :class:`~garcon_jupyter.wire.dictionary_training.LossRecovered`.

    Attributes:
        training: the run that it is of.
        settings: what is trained.
        batch: whose next tokens are predicted.
    """

    training: str = ""
    settings: TrainingSettings = field(default_factory=_nothing_to_train)
    batch: Batch = dataclasses.field(default_factory=lambda: Batch(None))
    seed: int = 0


@dataclass
class KeepTraining(Request):
    """Put a dictionary in training down, take it up again, write what it has learnt, or forget it.

    Attributes:
        training: the run that it is of.
        settings: what is trained.
        what: "checkpoint" and "restore" its whole state, "dictionary" what others read, or "forget" it.
        directory: on every host; None to restore the beginning.
    """

    training: str = ""
    settings: TrainingSettings = field(default_factory=_nothing_to_train)
    what: str = "checkpoint"
    directory: str | None = None


@dataclass
class LoadDictionary(Request):
    """Hold a dictionary beside the model, so that its latents are points; answer with its :class:`DictionaryPoints
    <garcon_jupyter.points.dictionary_points.DictionaryPoints>` and its :class:`Description
    <garcon_jupyter.dictionaries.description.Description>`. Where it is there already, it stays.

    Attributes:
        path: of its files, on the server's hosts.
        name: by which its points are called; "" for one that is made of the path.
        at: the point that it reads, or that and the one that it writes; of several, all that it reads, or those and then those that it
            writes, where a pattern stands for the points that it selects; () for those that its files name.
    """

    path: str = ""
    name: str = ""
    at: tuple[str, ...] = ()


@dataclass
class UnloadDictionary(Request):
    """Let go of a dictionary; answer with its name."""

    name: str = ""


@dataclass
class ReadDictionary(Request):
    """Read a weight of a loaded dictionary from its files, whatever ranks hold of it; answer with its :class:`Description
    <garcon_jupyter.dictionaries.description.Description>` and the weight.

    Attributes:
        name: of the dictionary.
        weight: by the names of the form, such as "decoder" [F, O]; "" for none.
        first: latent that is read first, where the weight has some.
        stop: and the one before which it ends; None for all.
    """

    name: str = ""
    weight: str = ""
    first: int = 0
    stop: int | None = None
