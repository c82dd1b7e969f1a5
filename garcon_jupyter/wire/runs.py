"""Runs on the wire: what to stream past which probes, and how far it is.

A run lives on the server, in the session that began it. It is begun, looked at and steered by questions on the
control channel (``garcon_run``), so that it outlives whoever asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from garcon_jupyter.wire.dictionary_training import TrainingSettings, TrainingStatus
from garcon_jupyter.wire.requests import ProbeSpec, Splice

VERBS = ("start", "resume_from", "list", "poll", "pause", "resume", "cancel")
"""What can be asked about runs."""

BEGINNING = ("start", "resume_from")
"""Those of them that are asked once, whatever comes of it: each begins a run."""

OVER = ("done", "cancelled", "failed")
"""States in which a run does nothing more by itself."""


@dataclass(frozen=True)
class Data:
    """The documents of a run: exactly one of `texts`, `rows` and `path`.

    Attributes:
        texts: documents as texts.
        rows: documents as token ids, a list of integer arrays.
        path: a file or directory that the server reads.
        field: the column or key that holds the text or the tokens; "" for the usual names.
        documents: what a document of a text file is: "line", "paragraph" or "file".
    """

    texts: tuple[str, ...] | None = None
    rows: tuple[Any, ...] | None = None
    path: str | None = None
    field: str = ""
    documents: str = "line"


@dataclass(frozen=True)
class Plan:
    """How documents become batches.

    Attributes:
        packed: documents one after the other in rows of equal length, or one document a row; None for packed
            where they are texts or one long array.
        length: tokens of a row at most; None for 256 where packed, else the longest that the model reads.
        batch_tokens: tokens of a batch at most, padding included; a single longer row is a batch.
        long: of an unpacked document that is too long: "refuse", "cut", or "split" into several rows.
        special: whether the tokenizer adds its special tokens to a document; None for its own habit.
        between: token after each document of a packed row; None for the tokenizer's end-of-text token, −1
            for none.
        skip: leave out documents that cannot be read, instead of stopping there.
        most_tokens: stop after so many tokens; None for all.
        first_document: number of the first document, where the data is a part of more.
    """

    packed: bool | None = None
    length: int | None = None
    batch_tokens: int = 2048
    long: str = "refuse"
    special: bool | None = None
    between: int | None = None
    skip: bool = False
    most_tokens: int | None = None
    first_document: int = 0


@dataclass(frozen=True)
class StartRun:
    """Begin a run.

    Attributes:
        fresh: forget first what is recorded where these probes save.
        checkpoint: directory for checkpoints; None for one in the server's own.
        every: seconds between two checkpoints; 0 for one after each batch.
        adapter: that is on in all of its passes; None for the base model.
        splices: dictionaries that all of its passes go through.
        conclude: whether what the probes keep is told when the data is over: stores of activations end so.
        training: a dictionary to train, in place of probes; it is written to the directory that `checkpoint` is in.
    """

    data: Data
    probes: tuple[ProbeSpec, ...] = ()
    plan: Plan = Plan()
    seed: int = 0
    fresh: bool = True
    checkpoint: str | None = None
    every: float = 30.0
    adapter: str | None = None
    splices: tuple[Splice, ...] = ()
    conclude: bool = False
    training: TrainingSettings | None = None


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes:
        id: what the server calls it.
        state: "running", "paused", "done", "cancelled" or "failed".
        batches, documents, tokens: what is done.
        skipped: documents left out because they could not be read.
        fraction: of the data, between 0 and 1; None where it is not known.
        seconds: time spent on batches.
        failure: why it failed, as errors travel.
        checkpointed: batches of the last checkpoint; None before the first.
        lost: why the last checkpoint could not be written; "" where it could.
        printed: what probes printed, ``(rank, stream, text)``, from the number that was asked for.
        prints: how many prints there were.
        first_document: number of the first document.
        training: how a training goes; None of other runs.
        store: the directory of the store that it writes; "" of other runs.
    """

    id: str
    state: str
    batches: int = 0
    documents: int = 0
    tokens: int = 0
    skipped: int = 0
    fraction: float | None = None
    seconds: float = 0.0
    failure: dict[str, Any] | None = None
    checkpointed: int | None = None
    lost: str = ""
    printed: tuple[tuple[int, str, str], ...] = ()
    prints: int = 0
    first_document: int = 0
    training: TrainingStatus | None = None
    store: str = ""

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take; None where it is not known."""
        if not self.fraction or not self.seconds:
            return None
        return self.seconds * (1 - self.fraction) / self.fraction

    @property
    def over(self) -> bool:
        """Whether it does nothing more by itself."""
        return self.state in OVER
