"""A run that trains a dictionary: its batches go past a trainer, and when the data is over, what it learnt is written.

It has all that runs have: turns, portions, checkpoints, pauses. Beside that it measures now and then, on a batch that is not trained on
yet, what the model loses with the dictionary in its place.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from garcon_backend.lockstep.coordinator import Lockstep
from garcon_backend.lockstep.outcome import RequestFailed
from garcon_backend.runs.batches import Batches, Position
from garcon_backend.runs.run import DataRun
from garcon_backend.runs.stored_batches import StoredBatches
from garcon_jupyter.activation_stores import open_store
from garcon_jupyter.activation_stores.addresses import directory_of
from garcon_jupyter.activation_stores.writing import MANIFEST
from garcon_jupyter.errors import BadData, BadRequest, WrongDictionary
from garcon_jupyter.wire import requests as wire
from garcon_jupyter.wire.dictionary_training import TrainingSettings, TrainingStatus
from garcon_jupyter.wire.failures import revive
from garcon_jupyter.wire.runs import RunStatus

_TURN = 0.5
"""Seconds of a turn in which what is left in the buffer is trained on."""

_MEASURED = 512
"""Tokens at most by which the loss is measured: logits of all of them are held."""


class DictionaryRun(DataRun):
    """A training; arguments as of :class:`~garcon_backend.runs.run.DataRun`.

    Attributes:
        out: directory that the dictionary is written to: the one that the checkpoints are in.

    Raises:
        BadData: the data cannot be read, or the directory not be written.
        WrongDictionary: a store has not the points that are trained on.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._stored = ""
        self._notes: tuple[str, ...] = ()
        super().__init__(*args, **kwargs)
        self._progress = wire.TrainingProgress((), 0, 0)
        self._points: list[Any] = []
        self._measurements: list[Any] = []
        self._written, self._measurable = False, True
        self._last: wire.Batch | None = None
        if self._where is not None and self._where.told is not None:
            self._measurements = list(self._where.told)
        if self.asked.checkpoint is None:
            raise BadRequest("A training needs a directory.", "Give checkpoint=.")
        self.out = self.directory.parent
        _check_directory(self.out)

    @property
    def settings(self) -> TrainingSettings:
        """What is trained."""
        assert self.asked.training is not None
        return self.asked.training

    def _opened(self, tokenizer: Any, sizes: dict[str, int], position: Position) -> Any:
        path = directory_of(self.asked.data.path or "")
        if self.asked.data.path is None or not (path / MANIFEST).exists():
            batches: Batches = super()._opened(tokenizer, sizes, position)
            return batches
        store = open_store(path)
        for point in self.settings.points:
            if point not in store.points:
                raise WrongDictionary(
                    f"The store in {path} has {', '.join(store.points)}, and not {point}.",
                    "Train on a point that was stored.",
                )
        self._stored = str(path)
        if store.order == "data":
            self._notes = (
                "The store is in the order of its data: rows are shuffled within the buffer alone; garcon.shuffle() puts all in a "
                "random order.",
            )
        return StoredBatches(store, self.asked.plan, position)

    # -- what a batch asks of the ranks ----------------------------------------------------------

    def _run_portion(self, lockstep: Lockstep) -> None:
        every = self.settings.measured
        at_beginning = not self._portions.done and self.batches.position.batches > 1
        if every and at_beginning and (self.batches.position.batches - 1) % every == 0:
            self._measure(lockstep, self._portions.whole)
        self._last = self._portions.whole
        super()._run_portion(lockstep)

    def _request(self, batch: wire.Batch) -> wire.Request:
        return self._training(batch)

    def _training(self, batch: wire.Batch | None) -> wire.TrainDictionary:
        return wire.TrainDictionary(
            self.session,
            adapter=self.asked.adapter,
            training=self.id,
            settings=self.settings,
            batch=batch,
            store=self._stored,
            heard=(self._progress.merged, len(self._points)),
            seed=0 if batch is None else self._seed(batch),
        )

    def _hear(self, answer: Any) -> None:
        if answer is None:
            return
        if answer.merged != self._progress.merged:
            self._points = []
        self._points += answer.points
        self._progress = answer

    def _finished(self, lockstep: Lockstep) -> bool:
        """Train on what waits in the buffer, then write; a turn has so many steps as take a moment."""
        end = time.monotonic() + _TURN
        while True:
            answer = lockstep.run(self.id, self._training(None))
            self._hear(answer)
            if not (answer is not None and answer.more):
                break
            if time.monotonic() > end:
                return False
        if self.settings.measured and self._last is not None:
            self._measure(lockstep, self._last)
        lockstep.run(self.id, self._kept("dictionary", str(self.out)))
        self._written = True
        lockstep.run(self.id, self._kept("forget", None))
        return True

    def _measure(self, lockstep: Lockstep, batch: wire.Batch | None) -> None:
        """What the model loses, on some rows of a batch; where that does not fit it is left out from then on."""
        if batch is None or self._stored or not self._measurable or not self._progress.steps:
            return
        rows = max(1, _MEASURED // batch.ids.shape[1])
        few = wire.Batch(batch.ids[:rows], None if batch.mask is None else batch.mask[:rows])
        asked = wire.MeasureTraining(
            self.session,
            adapter=self.asked.adapter,
            training=self.id,
            settings=self.settings,
            batch=few,
        )
        try:
            found = lockstep.run(self.id, asked)
        except RequestFailed as error:
            if error.failure["class"] != "DoesNotFit":
                raise
            self._measurable = False
            self._notes += (f"The loss recovered is not measured: {revive(error.failure)}",)
            return
        if found is not None:
            tokens = self._points[-1].tokens if self._points else 0
            self._measurements.append((tokens, found))

    # -- put down and taken up -------------------------------------------------------------------

    def _kept(self, what: Any, directory: str | None) -> wire.KeepTraining:
        return wire.KeepTraining(
            self.session,
            training=self.id,
            settings=self.settings,
            what=what,
            directory=directory,
        )

    def _restoring(self, directory: str | None) -> wire.Request:
        self._points, self._progress = [], wire.TrainingProgress((), 0, 0)
        return self._kept("restore", directory)

    def _keeping(self, directory: str) -> wire.Request:
        return self._kept("checkpoint", directory)

    def _told(self) -> Any:
        return tuple(self._measurements)

    def _write_checkpoint(self, lockstep: Lockstep) -> None:
        if self.state == "done":  # what it learnt is written
            shutil.rmtree(self.directory, ignore_errors=True)
            return
        super()._write_checkpoint(lockstep)

    def status(self, prints_from: int = 0) -> RunStatus:
        """How far it is, with the curve."""
        told = TrainingStatus(
            self.settings,
            str(self.out),
            tuple(self._points),
            tuple(self._measurements),
            self._notes,
            self._written,
        )
        return replace(super().status(prints_from), training=told)


def _check_directory(directory: Path) -> None:
    """Make the directory that the dictionary will be in.

    Raises:
        BadData: it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadData(
            f"The dictionary cannot be written to {directory}: {error.strerror or error}.",
            "Give out= another directory.",
        ) from None
