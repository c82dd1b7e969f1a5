"""Activations written to disk by the ranks that have them, while data streams past.

The state is on disk: a store (:mod:`garcon_jupyter.activation_stores`), of which the save context keeps a few numbers that say how far
it is. A checkpoint of the run has these numbers, so a run that goes on from one cuts off what was written after it; no row is
twice there, and none is lost. Each rank writes the units and the rows that it has. Which rows of the whole they are it knows from the
run, so that ranks need not ask each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from garcon_jupyter.activation_stores import journal, making, numbers
from garcon_jupyter.activation_stores.row_files import RowLayout
from garcon_jupyter.activation_stores.writing import MANIFEST, RowWriter, WriterMark
from garcon_jupyter.errors import BadData, BadProbe, BadRequest
from garcon_jupyter.recorders.base import Recorder
from garcon_jupyter.recorders.observing import seen

NAME = "stored"
"""Name of the probes of ``rmodel.store``, and of the state."""

_WRITERS: dict[tuple[str, str], RowWriter] = {}
"""What this process has open, by directory and stem. A state is numbers only, and finds its writer here."""


@dataclass(frozen=True)
class StoredSoFar:
    """How far a rank's part of a store is.

    Attributes:
        directory: of the store.
        stem: of the files of this rank's part.
        units: how many it has of each row.
        stored: how they are stored.
        capacity: rows of a whole file.
        about: what the files say of themselves, as JSON would have it.
        mark: where the writer is.
    """

    directory: str
    stem: str
    units: int
    stored: str
    capacity: int
    about: Mapping[str, Any]
    mark: WriterMark

    @property
    def rows(self) -> int:
        """Rows that this rank has written."""
        return self.mark.total

    @property
    def nbytes(self) -> int:
        """Bytes that this rank has written."""
        return self.mark.total * RowLayout(self.units, self.stored).row_bytes

    def writer(self) -> RowWriter:
        """The writer where this state left it; one that is elsewhere is cut back, or opened again.

        Raises:
            BadData: what it wrote is damaged.
            BadRequest: another process writes there.
        """
        key = self.directory, self.stem
        found = _WRITERS.get(key)
        if found is not None and found.mark == self.mark:
            return found
        return _opened(self, self.mark)

    def settle(self) -> None:
        """See that what was written is on the disk: a checkpoint is about to count on it. What is sealed is there."""
        found = _WRITERS.get((self.directory, self.stem))
        if found is not None and found.mark == self.mark:
            found.settle()

    def conclude(self) -> None:
        """The run is over: seal the last file.

        Raises:
            DoesNotFit: the disk is full.
        """
        self.writer().finish()
        _WRITERS.pop((self.directory, self.stem)).close()

    def __repr__(self) -> str:
        return f"<{self.rows:,} rows of {self.about['point']} stored in {self.directory}>"


def _opened(state: StoredSoFar, mark: WriterMark | None) -> RowWriter:
    key = state.directory, state.stem
    if (former := _WRITERS.pop(key, None)) is not None:
        former.close()
    writer = RowWriter(
        Path(state.directory),
        state.stem,
        RowLayout(state.units, state.stored),
        state.about,
        state.capacity,
        mark,
    )
    _WRITERS[key] = writer
    return writer


class StoreRecorder(Recorder[Any]):
    """The rows of a point, stored. ``rmodel.store(point, data, directory)`` makes these, and the run that they belong to.

    Args:
        directory: of the store, on the ranks' hosts.
        manifest: of the store, which the first rank that comes there puts down.

    Raises:
        BadProbe: the point has no value for each token.
    """

    name = NAME
    state = StoredSoFar

    def __init__(self, directory: str, manifest: Mapping[str, Any]) -> None:
        self.directory, self._manifest = directory, dict(manifest)

    def check(self, dims: Sequence[str], point: str) -> None:
        """Refuse a point that has no value for each token, which those of an expert lack too."""
        if dims[:2] != ("b", "p") or len(dims) < 3:
            raise BadProbe(
                f"{point} is [{', '.join(dims)}], not one value for each token of the data.",
                "Store points of shape [b, p, …].",
            )

    def needs(self, point: str, units: Callable[[str], int], kept: Collection[str]) -> int:
        """Nothing of memory to speak of."""
        return 0

    def merge(self, states: Sequence[StoredSoFar]) -> StoredSoFar:
        """That of the rank that has most."""
        return max(states, key=lambda state: state.rows)

    def __call__(self, save_ctx: Any, tensor: Tensor) -> None:
        """Write the rows of a batch that are this rank's."""
        here = save_ctx.here
        if getattr(here, "before", None) is None:
            raise BadRequest(
                "Activations are stored while data streams in a run.",
                "rmodel.store(point, data, directory) begins one.",
            )
        shard = here.shard
        if shard is not None and not shard.counts:
            return  # another rank has the same
        state = getattr(save_ctx, self.name, None)
        facts = self._manifest["points"][here.point]
        observed = seen(tensor, here)
        if state is None:
            state = self._begun(here, observed.start, observed.values.shape[1], facts)
        writer = state.writer()
        given = str(observed.values.dtype).removeprefix("torch.")
        rows = numbers.encoded(_bits(observed.values), given, state.stored, here.point)
        columns = {
            "activations": rows.values,
            "place": observed.places.cpu().numpy(),
            "token": observed.tokens.cpu().numpy(),
        }
        if rows.scale is not None:
            columns["scale"] = rows.scale
        first = here.before + _tokens_before(here)
        writer.append([(first, len(rows.values))], columns, rows.lost)
        setattr(save_ctx, self.name, _at(state, writer.mark))

    def _begun(self, here: Any, start: int, units: int, facts: Mapping[str, Any]) -> StoredSoFar:
        directory = Path(self.directory)
        making.begin(directory, self._manifest)
        if "rows" in journal.get(directory / MANIFEST):
            raise BadData(f"The store in {directory} is complete.", "Give a new directory.")
        replica = here.shard.replica if here.shard is not None else 0
        index = here.shard.index if here.shard is not None else 0
        part = f"r{replica}t{index}" if replica or units < facts["units"] else ""
        about = {
            "point": here.point,
            "columns": [start, start + units],
            "rows": f"r{replica}",
            "order": {},
        }
        stem = making.stem_of(here.point, part)
        stored, capacity = facts["stored"], facts["rows_of_a_file"]
        state = StoredSoFar(self.directory, stem, units, stored, capacity, about, WriterMark())
        return _at(state, _opened(state, None).mark)


def _at(state: StoredSoFar, mark: WriterMark) -> StoredSoFar:
    return StoredSoFar(
        state.directory,
        state.stem,
        state.units,
        state.stored,
        state.capacity,
        dict(state.about),
        mark,
    )


def _bits(values: Tensor) -> np.ndarray:
    """Values as NumPy has them, bfloat16 as its bits."""
    values = values.detach().contiguous().cpu()
    if values.dtype == torch.bfloat16:
        return values.view(torch.int16).numpy().view(np.uint16)
    return values.numpy()


def _tokens_before(here: Any) -> int:
    """Tokens of the batch, without padding, that other replicas have before this one."""
    first = (here.rows.start or 0) if here.rows is not None else 0
    if here.mask is None:
        return first * int(here.tokens.shape[1])
    return int(here.mask[:first].sum())
