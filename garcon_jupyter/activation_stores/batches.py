"""Rows of a store as torch, NumPy and Arrow have them, and batches that are read ahead.

torch has all dtypes as they are stored. NumPy has no bfloat16: such rows are float32 there, which holds them exactly; so are
8-bit rows, times their scale, everywhere.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from garcon_jupyter.activation_stores.numbers import as_float32
from garcon_jupyter.errors import BadRequest, MissingModule
from garcon_jupyter.libraries import side_threads

KINDS = ("torch", "numpy", "arrow")

OFFSET_BITS = 32
"""A place is ``document << 32 | offset``, as recorders have it."""


@dataclass(frozen=True)
class StoredRows:
    """Rows of a store.

    Attributes:
        activations: [n, …] of the point; of a store of several points, by their names.
        place: int64 [n], document and offset of each token as one integer.
        token: int32 [n], the token ids.
    """

    activations: Any
    place: Any
    token: Any

    @property
    def document(self) -> Any:
        """Number of each row's document, [n]."""
        return self.place >> OFFSET_BITS

    @property
    def offset(self) -> Any:
        """Place of each row in its document, [n]."""
        return self.place & ((1 << OFFSET_BITS) - 1)

    def __len__(self) -> int:
        return len(self.token)

    def __repr__(self) -> str:
        shown = self.activations
        shapes = shown if isinstance(shown, Mapping) else {"activations": shown}
        said = ", ".join(f"{name} {list(value.shape)}" for name, value in shapes.items())
        return f"<{len(self):,} stored rows: {said}>"


def converter(kind: str) -> Callable[[np.ndarray, str, np.ndarray | None], Any]:
    """What makes of stored values what a library has: ``(values, stored, scale) -> values``.

    Raises:
        BadRequest: nobody has that.
        MissingModule: it is not installed.
    """
    if kind not in KINDS:
        raise BadRequest(f"Batches come not as {kind!r}.", f"Use {', '.join(KINDS)}.")
    if kind == "torch":
        import torch

        def as_torch(values: np.ndarray, stored: str, scale: np.ndarray | None) -> Any:
            if stored == "bfloat16":
                return torch.from_numpy(values.view("<i2")).view(torch.bfloat16)
            return torch.from_numpy(as_numpy(values, stored, scale))

        return as_torch
    return as_numpy


def as_numpy(values: np.ndarray, stored: str, scale: np.ndarray | None) -> np.ndarray:
    """Stored values as NumPy has them; what it has not as float32, exactly."""
    return as_float32(values, stored, scale) if stored in ("bfloat16", "int8") else values


def as_arrow(rows: StoredRows) -> Any:
    """Rows as a ``pyarrow.RecordBatch`` with columns of fixed-size lists.

    Raises:
        MissingModule: pyarrow is not installed.
    """
    pa = needed("pyarrow")
    found = rows.activations if isinstance(rows.activations, Mapping) else None
    columns = {"activations": rows.activations} if found is None else dict(found)
    arrays = {
        name: pa.FixedSizeListArray.from_arrays(
            pa.array(values.reshape(-1)), int(np.prod(values.shape[1:]))
        )
        for name, values in columns.items()
    }
    arrays |= {"place": pa.array(rows.place), "token": pa.array(rows.token)}
    return pa.RecordBatch.from_arrays(list(arrays.values()), list(arrays))


def needed(module: str) -> Any:
    """A module that is an extra.

    Raises:
        MissingModule: it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise MissingModule(
            f"This needs {module}, which is not installed.", "pip install garcon-jupyter[data]."
        ) from None


def ahead(make: Iterator[Any], depth: int) -> Iterator[Any]:
    """What an iterator yields, made up to `depth` items ahead on a thread of its own."""
    if depth < 1:
        yield from make
        return
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: tuple[str, Any]) -> bool:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            for item in make:
                if not put(("item", item)):
                    return
            put(("end", None))
        except BaseException as error:  # noqa: BLE001 - whatever it is, whoever reads is told
            put(("error", error))

    side_threads.start("garcon-batches", work, stop=stopped.set)
    try:
        while True:
            kind, item = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise item
            yield item
    finally:
        stopped.set()


def torch_dataset(batches: Callable[..., Iterator[StoredRows]], count: Callable[[], int]) -> Any:
    """A ``torch.utils.data.IterableDataset`` of batches; the workers of a DataLoader share them.

    Args:
        batches: makes an iterator of them, of a share of all.
        count: how many they are.
    """
    import torch.utils.data as data

    class StoredBatches(data.IterableDataset):  # type: ignore[type-arg]
        """Batches of a store as dictionaries; of a worker those whose numbers are its own."""

        def __iter__(self) -> Iterator[dict[str, Any]]:
            worker = data.get_worker_info()
            mine = (worker.id, worker.num_workers) if worker else (0, 1)
            for rows in batches(share=mine):
                found = rows.activations
                named = found if isinstance(found, Mapping) else {"activations": found}
                yield {**named, "place": rows.place, "token": rows.token}

        def __len__(self) -> int:
            return count()

    return StoredBatches()
