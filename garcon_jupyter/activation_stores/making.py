"""The manifest of a store, and a store made of arrays that are there already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.activation_stores import journal, numbers
from garcon_jupyter.activation_stores.addresses import StoreAddress, need_directory
from garcon_jupyter.activation_stores.row_files import FILE_BYTES, RowLayout
from garcon_jupyter.activation_stores.store import FORMAT, ActivationStore, open_store
from garcon_jupyter.activation_stores.writing import MANIFEST, RowWriter
from garcon_jupyter.errors import BadData

COPIED = "Make it in a directory; store.copy(address) puts it there."


def stem_of(point: str, part: str = "") -> str:
    """What the names of a point's files begin with; of a writer that has a part of it with that."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in point)
    return f"{safe}.{part}" if part else safe


def point_facts(
    shape: Sequence[int], given: str, stored: str, file_bytes: int = FILE_BYTES
) -> dict[str, Any]:
    """What a manifest says of a point.

    Args:
        shape: of a row, such as [heads, units of a head].
        given: the dtype that its values had.
        stored: how they are stored.
    """
    units = int(np.prod(shape))
    layout = RowLayout(units, stored)
    return {
        "shape": list(shape),
        "units": units,
        "given": given,
        "stored": stored,
        "rows_of_a_file": layout.rows_of(file_bytes),
    }


def manifest(
    points: Mapping[str, Mapping[str, Any]],
    order: Mapping[str, Any],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """A manifest.

    Args:
        points: what :func:`point_facts` says of each.
        order: {"seed": …} of a shuffle, {} of data.
        about: where the activations are from.
    """
    return {
        "format": FORMAT,
        "points": {name: dict(facts) for name, facts in points.items()},
        "order": dict(order),
        "about": dict(about),
    }


def begin(directory: Path, value: Mapping[str, Any]) -> bool:
    """Put down the manifest of a store that is going to be written, unless it is there.

    Returns:
        Whether it was there: the store was begun before.

    Raises:
        BadData: the directory has another store, or holds something else.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / MANIFEST
    if path.exists():
        check_same(directory, journal.get(path), value)
        return True
    half = f"{MANIFEST}.writing"  # of a process that was killed just then
    names = [each.name for each in directory.iterdir()]
    if others := [name for name in names if not name.startswith(".") and name != half]:
        raise BadData(f"{directory} holds {others[0]} already.", "Give a new directory.")
    journal.put(path, value)
    return False


def check_same(
    directory: Path | StoreAddress, there: Mapping[str, Any], value: Mapping[str, Any]
) -> None:
    """That the manifest of a store is the one that is wanted, however far it is.

    Raises:
        BadData: it is another; says in what.
    """
    for name in ("format", "points", "order", "about"):
        if there.get(name) != value.get(name):
            raise BadData(
                f"{directory} has a store with another {name}: {_differing(there, value, name)}.",
                "Give a directory of its own, or the same call that began this one.",
            )


def _differing(there: Mapping[str, Any], wanted: Mapping[str, Any], name: str) -> str:
    one, other = there.get(name), wanted.get(name)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        return "; ".join(f"{key} was {one.get(key)}, and is {other.get(key)}" for key in keys)
    return f"it was {one}, and is {other}"


def complete(directory: Path, rows: int) -> None:
    """Put down that a store has all its rows."""
    value = journal.get(directory / MANIFEST)
    journal.put(directory / MANIFEST, {**value, "rows": rows})


def from_arrays(
    path: str | Path,
    activations: np.ndarray | Iterable[np.ndarray],
    place: np.ndarray | None = None,
    token: np.ndarray | None = None,
    point: str = "activations",
    given: str | None = None,
    dtype: str | None = None,
    file_bytes: int = FILE_BYTES,
) -> ActivationStore:
    """A store of activations that are there already: ``from_arrays("acts", array)``.

    Args:
        path: a new directory.
        activations: [rows, units], or such arrays one after the other.
        place: int64 [rows]; by default each row is a document.
        token: int32 [rows]; by default 0.
        point: what to call them.
        given: their dtype, where NumPy does not say it: "bfloat16" for its bits in uint16.
        dtype: how to store them; by default in their own 16 bits, float32 as float16.
        file_bytes: of a whole file.

    Raises:
        BadData: the directory holds something, or a value is beyond what it is stored in.
    """
    arrays = iter([activations] if isinstance(activations, np.ndarray) else activations)
    first = next(arrays)
    had = given or str(first.dtype)
    stored = numbers.chosen(dtype, had)
    units = int(np.prod(first.shape[1:]))
    directory = need_directory(path, "A store in the making", COPIED)
    facts = point_facts(first.shape[1:], had, stored, file_bytes)
    if begin(directory, manifest({point: facts}, {}, {})):
        raise BadData(f"{directory} has a store already.", "Give a new directory.")
    layout = RowLayout(units, stored)
    about = {"point": point, "columns": [0, units], "order": {}}
    writer = RowWriter(directory, stem_of(point), layout, about, facts["rows_of_a_file"])
    at = 0
    while first is not None:
        rows = numbers.encoded(first.reshape(len(first), units), had, stored, point)
        numbers_of = np.arange(at, at + len(first))
        columns = {
            "activations": rows.values,
            "place": numbers_of << 32 if place is None else place[numbers_of],
            "token": np.zeros(len(first)) if token is None else token[numbers_of],
        }
        if rows.scale is not None:
            columns["scale"] = rows.scale
        writer.append([(at, len(first))], columns, rows.lost)
        at += len(first)
        first = next(arrays, None)  # type: ignore[arg-type]
    writer.finish()
    writer.close()
    complete(directory, at)
    return open_store(directory)
