"""A store, read: by rows, slices, documents and batches. It needs no server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.activation_stores import journal
from garcon_jupyter.activation_stores.addresses import StoreAddress, directory_of
from garcon_jupyter.activation_stores.batches import (
    OFFSET_BITS,
    StoredRows,
    ahead,
    as_arrow,
    converter,
    torch_dataset,
)
from garcon_jupyter.activation_stores.point_rows import PointRows
from garcon_jupyter.activation_stores.writing import MANIFEST
from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import BadData, BadRequest, UnknownPoint

FORMAT = "garcon activations 1"

_SCANNED = 1 << 20
"""Places looked at in one go."""


def open_store(path: str | Path | StoreAddress, partial: bool = False) -> ActivationStore:
    """Open a store; it needs no server.

    Args:
        path: its directory; or an address of fsspec's, "s3://bucket/acts".
        partial: open it though it is not complete: the rows of whole files, from the first on.

    Raises:
        BadData: there is none, it is not complete, or a file of it is damaged, missing or another's.
        MissingModule, Unreachable: what an address needs is not installed, or it does not answer.

    Examples:
        >>> store = garcon.open_store("acts")  # doctest: +SKIP
        >>> store[:3].activations.shape  # doctest: +SKIP
        torch.Size([3, 576])
    """
    return ActivationStore(directory_of(path), partial)


class ActivationStore:
    """Activations on disk: rows of one point or several, each with its place in the data and its token.

    Attributes:
        path: its directory.
        facts: what the manifest says: points, model, order, what made it.
        points: the names of its points.
        rows: how many rows there are.

    Args:
        path: its directory.
        partial: as for :func:`open_store`.
    """

    def __init__(self, path: Path | StoreAddress, partial: bool = False) -> None:
        self.path = path
        if not (path / MANIFEST).exists():
            raise BadData(
                f"There is no store of activations in {str(path)!r}: it has no {MANIFEST}.",
                "rmodel.store(point, data, path) makes one.",
            )
        self.facts = journal.get(path / MANIFEST)
        if self.facts.get("format") != FORMAT:
            raise BadData(
                f"{path} is of format {self.facts.get('format')!r}, and this reads {FORMAT!r}.",
                "Read it with the version of garcon-jupyter that wrote it.",
            )
        self._point_rows = {
            point: PointRows(path, point, facts, not partial)
            for point, facts in self.facts["points"].items()
        }
        self.points = tuple(self._point_rows)
        self.rows = min((each.rows for each in self._point_rows.values()), default=0)
        if not partial:
            self._check_complete()

    def _check_complete(self) -> None:
        counts = {point: each.rows for point, each in self._point_rows.items()}
        ended = all(each.ended and each.groups for each in self._point_rows.values())
        wanted = self.facts.get("rows", self.rows)
        if not ended or set(counts.values()) != {wanted}:
            said = ", ".join(f"{count:,} of {point}" for point, count in counts.items())
            raise BadData(
                f"The store in {self.path} is not complete: it has {said} in whole files.",
                "Give the same call again, which goes on; partial=True opens what there is.",
            )
        for each in self._point_rows.values():
            each.look()

    # -- what it is ------------------------------------------------------------------------------

    @property
    def order(self) -> str:
        """Whether rows follow the data ("data") or a seed ("shuffled")."""
        return "shuffled" if "seed" in self.facts.get("order", {}) else "data"

    @property
    def seed(self) -> int | None:
        """Of the shuffle; None where rows follow the data."""
        seed: int | None = self.facts.get("order", {}).get("seed")
        return seed

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return sum(each.rows * each.layout.row_bytes for each in self._point_rows.values())

    @property
    def lost(self) -> dict[str, float]:
        """The largest loss of a row of each point when it was stored, as a part of its length; 0 where no bit was lost."""
        return {point: each.lost for point, each in self._point_rows.items()}

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        said = ", ".join(
            f"{point} {list(each.shape)} {each.stored}" for point, each in self._point_rows.items()
        )
        order = (
            f"shuffled by seed {self.seed}" if self.seed is not None else "in the order of the data"
        )
        return f"<store of {self.rows:,} rows, {order}: {said}; {sized(self.nbytes)}>"

    def point_rows(self, point: str | None = None) -> PointRows:
        """The files of a point; of the only one where none is named.

        Raises:
            UnknownPoint: it is not in the store.
            BadRequest: there are several.
        """
        if point is None:
            if len(self.points) > 1:
                raise BadRequest(
                    f"The store has {len(self.points)} points: {', '.join(self.points)}.",
                    "Say which: point=….",
                )
            point = self.points[0]
        if point not in self._point_rows:
            raise UnknownPoint.among("point", point, self.points, "These are in the store.")
        return self._point_rows[point]

    # -- rows ------------------------------------------------------------------------------------

    def read(
        self, first: int, count: int, as_: str = "torch", points: Sequence[str] | str | None = None
    ) -> StoredRows | Any:
        """Rows that follow one another.

        Args:
            first: number of the first.
            count: how many; fewer where there are no more.
            as_: "torch", "numpy", or "arrow" for a record batch.
            points: a point, or several; all of the store where none is named.

        Returns:
            A :class:`StoredRows`; of "arrow" a ``pyarrow.RecordBatch``.
        """
        count = max(0, min(count, self.rows - first))
        if not 0 <= first <= self.rows:
            raise BadRequest(f"Row {first} is not among {self.rows:,}.", "Rows count from 0.")
        names = self.points if points is None else (points,) if isinstance(points, str) else points
        convert = converter(as_)
        found: dict[str, Any] = {}
        columns: dict[str, np.ndarray] = {}
        for name in names:
            rows = self.point_rows(name)
            skipped = () if not columns else ("activations", "scale")
            wanted = tuple(c for c in rows.layout.columns if not skipped or c in skipped)
            read = rows.read(first, count, wanted)
            columns = columns or read
            values = read["activations"].reshape(count, *rows.shape)
            found[name] = convert(values, rows.stored, read.get("scale"))
        one = found[names[0]] if len(names) == 1 else found
        place, token = columns["place"], columns["token"]
        if as_ == "torch":
            import torch

            return StoredRows(one, torch.from_numpy(place), torch.from_numpy(token))
        rows_found = StoredRows(one, place, token)
        return as_arrow(rows_found) if as_ == "arrow" else rows_found

    def expect(self, first: int, count: int, points: Sequence[str] | None = None) -> None:
        """Tell the system that rows will be read soon, so that it reads ahead while something is computed.

        Args:
            first, count: rows, as for :meth:`read`; those that there are.
            points: of which points; None for all.
        """
        for name in points or self.points:
            self.point_rows(name).expect(first, count)

    def __getitem__(self, which: int | slice | Sequence[int]) -> StoredRows:
        """Rows by number, slice, or a list of numbers."""
        if isinstance(which, slice):
            start, stop, step = which.indices(self.rows)
            if step == 1:
                found: StoredRows = self.read(start, max(0, stop - start))
                return found
            return self._gathered(range(start, stop, step))
        if isinstance(which, (int, np.integer)):
            return self._gathered([int(which)])
        return self._gathered(list(which))

    def _gathered(self, which: Sequence[int]) -> StoredRows:
        import torch

        numbers = [number + self.rows if number < 0 else number for number in map(int, which)]
        if wrong := [number for number in numbers if not 0 <= number < self.rows]:
            raise BadRequest(f"Row {wrong[0]} is not among {self.rows:,}.", "Rows count from 0.")
        parts = [self.read(number, 1) for number in numbers] or [self.read(0, 0)]

        def together(values: list[Any]) -> Any:
            if isinstance(values[0], dict):
                return {name: torch.cat([value[name] for value in values]) for name in values[0]}
            return torch.cat(values)

        return StoredRows(*(together([getattr(p, n) for p in parts]) for n in _FIELDS))

    def document(self, number: int) -> StoredRows:
        """The rows of a document, in their order.

        Raises:
            BadRequest: none is of this document.
        """
        first, stop = number << OFFSET_BITS, (number + 1) << OFFSET_BITS
        if self.order == "data":
            begin = self._first_at(first)
            found: StoredRows = self.read(begin, self._first_at(stop) - begin)
        else:
            found = self._gathered(self._scanned(first, stop))
        if not len(found):
            raise BadRequest(f"No row is of document {number}.", "Documents count from 0.")
        return found

    def _first_at(self, place: int) -> int:
        """The first row whose place is not before one; rows in the order of the data have theirs in order."""
        low, high = 0, self.rows
        rows = self.point_rows(self.points[0])
        while low < high:
            middle = (low + high) // 2
            if int(rows.read(middle, 1, ("place",))["place"][0]) < place:
                low = middle + 1
            else:
                high = middle
        return low

    def _scanned(self, first: int, stop: int) -> list[int]:
        rows = self.point_rows(self.points[0])
        found: list[tuple[int, int]] = []
        for at in range(0, self.rows, _SCANNED):
            places = rows.read(at, min(_SCANNED, self.rows - at), ("place",))["place"]
            hits = ((places >= first) & (places < stop)).nonzero()[0]
            found += [(int(places[hit]), at + int(hit)) for hit in hits]
        return [row for _, row in sorted(found)]

    # -- batches ---------------------------------------------------------------------------------

    def batches(
        self,
        size: int,
        as_: str = "torch",
        points: Sequence[str] | str | None = None,
        start: int = 0,
        drop_last: bool = False,
        prefetch: int = 2,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Any]:
        """Batches in the order of the store, read ahead.

        Args:
            size: rows of a batch.
            as_, points: as for :meth:`read`.
            start: number of the first batch: training goes on where it was.
            drop_last: leave out a last batch that is smaller.
            prefetch: how many are read ahead, on a thread of their own.
            share: (i, n): every n-th batch from the i-th on, for n readers of one store.
        """
        if size < 1 or start < 0:
            raise BadRequest(f"Batches of {size} rows from {start} are none.", "Give at least 1.")
        index, readers = share
        stop = self.batch_count(size, drop_last=drop_last)
        mine = range(start + (index - start) % readers, stop, readers)
        return ahead((self.read(n * size, size, as_, points) for n in mine), prefetch)

    def batch_count(self, size: int, drop_last: bool = False, start: int = 0, **_: Any) -> int:
        """How many batches there are from one on."""
        whole = self.rows // size if drop_last else -(-self.rows // size)
        return max(0, whole - start)

    def dataset(self, size: int, **options: Any) -> Any:
        """The batches for ``torch.utils.data.DataLoader(store.dataset(4096), batch_size=None)``, as dictionaries.

        Args:
            size: rows of a batch.
            options: as for :meth:`batches`.
        """
        return torch_dataset(
            partial(self.batches, size, **options), partial(self.batch_count, size, **options)
        )

    # -- whole -----------------------------------------------------------------------------------

    def verify(self) -> None:
        """Read everything, and hold each tensor against its checksum.

        Raises:
            BadData: one differs; names file and column.
        """
        for rows in self._point_rows.values():
            rows.verify()

    def to_datasets(self, path: str | Path, point: str | None = None) -> Path:
        """Write the rows as a data set of Hugging Face's ``datasets``; see :mod:`garcon_jupyter.activation_stores.exports`."""
        from garcon_jupyter.activation_stores import exports

        return exports.to_datasets(self.point_rows(point), path)

    def to_saelens(self, path: str | Path, context: int, point: str | None = None) -> Path:
        """Write the rows as SAELens caches activations; see :mod:`garcon_jupyter.activation_stores.exports`."""
        from garcon_jupyter.activation_stores import exports

        return exports.to_saelens(self.point_rows(point), path, context)

    def copy(self, to: str | Path) -> ActivationStore:
        """Copy the store to another directory or address, and hold what is copied against its checksums.

        The manifest comes last, so what is cut short is no store; the same call copies what is missing.

        Args:
            to: a new directory, or an address such as "s3://bucket/acts".

        Returns:
            The copy, opened.

        Raises:
            BadData: a file is damaged; or there is something else already.
            Unreachable: an address does not answer.
        """
        from garcon_jupyter.activation_stores import copying

        target = directory_of(to)
        copying.copy(self.path, self.facts, list(self._point_rows.values()), target)
        return open_store(target)

    def close(self) -> None:
        """Let go of the files."""
        for rows in self._point_rows.values():
            rows.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """By its path, so that workers of a DataLoader open it themselves."""
        return open_store, (str(self.path),)


_FIELDS = ("activations", "place", "token")
