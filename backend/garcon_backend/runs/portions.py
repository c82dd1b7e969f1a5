"""A batch of a run in portions, so that none holds the model for much longer than a second.

Whoever asks for something while a run goes on waits for what is being computed. How long that is depends on the
model, the machine and the probes, so it is measured: a batch that takes no longer than a second is run whole, and one
that would take longer by so many of its rows at a time. What is computed of a row depends on no other row, and
recorders add up rows, so their numbers are those of whole batches, up to rounding. What was measured in a run's first
batch holds for all of it, and is in its checkpoints: a run that goes on after a rank was lost adds up the very same
portions.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from garcon_jupyter.wire.requests import Batch

LONGEST = 0.7
"""Seconds that a portion may take."""

AIM = 0.5
"""Seconds that it shall take, where the batch has to be cut."""

SLOW = 5e9
"""Multiplications in a second that a machine is taken to manage, before anything was measured."""


class Portions:
    """The rows of one batch after the other, each in portions.

    Args:
        parameters: of the model, by which the first portion is sized; later ones by how long others took.
        least: rows of a portion at least, such as the replicas that share them.
        each: as measured before.

    Attributes:
        each: seconds that a token takes, padding included; 0 until the first batch is over.
        done: tokens of the batch, without padding, that were run.
    """

    def __init__(self, parameters: int, least: int = 1, each: float = 0.0) -> None:
        self._least = least
        self.each = each
        self._guess = parameters / SLOW
        self._measured: list[float] = []
        self._batch: Batch | None = None
        self._first = self._end = 0
        self.done = 0

    @property
    def left(self) -> bool:
        """Whether some of the batch is still to be run."""
        return self._batch is not None

    @property
    def whole(self) -> Batch | None:
        """The batch that is being run; None where none is."""
        return self._batch

    def put(self, batch: Batch) -> None:
        """Begin a batch; the one before is over."""
        self._batch, self._first, self.done = batch, 0, 0

    def drop(self) -> None:
        """Forget what is left of a batch."""
        self._batch, self.done = None, 0

    def next(self) -> Batch:
        """The rows that are run next."""
        batch = self._batch
        assert batch is not None
        rows, width = batch.ids.shape
        # The quickest, for the first is slow: much is done for the first time.
        each = self.each or min(self._measured, default=self._guess)
        row = max(width * each, 1e-9)
        fit = (
            rows
            if (rows - self._first) * row <= LONGEST
            else max(self._least, math.floor(AIM / row))
        )
        self._end = min(rows, self._first + fit)
        return _rows(batch, self._first, self._end)

    def ran(self, seconds: float) -> None:
        """The last portion has run, and took so long."""
        batch = self._batch
        assert batch is not None
        ids = batch.ids[self._first : self._end]
        mask = batch.mask
        self._measured.append(seconds / ids.numel())
        self.done += ids.numel() if mask is None else int(mask[self._first : self._end].sum())
        self._first = self._end
        if self._end == len(batch.ids):
            self.drop()
            self.each = self.each or min(self._measured)
            self._measured.clear()


def _rows(batch: Batch, first: int, end: int) -> Batch:
    """Some rows of a batch; all of them are the batch itself."""
    if (first, end) == (0, len(batch.ids)):
        return batch
    parts: dict[str, Any] = {
        name: part[first:end]
        for name in ("ids", "mask", "documents", "offsets")
        if (part := getattr(batch, name)) is not None
    }
    if batch.before is not None:
        gone = batch.ids[:first].numel() if batch.mask is None else int(batch.mask[:first].sum())
        parts["before"] = batch.before + gone
    return replace(batch, **parts)
