"""A store copied to another place: to a directory or to an address, file by file, the manifest last."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from garcon_jupyter.activation_stores import journal
from garcon_jupyter.activation_stores.addresses import StoreAddress, files_in
from garcon_jupyter.activation_stores.pieces import opened
from garcon_jupyter.activation_stores.point_rows import PointRows
from garcon_jupyter.activation_stores.writing import MANIFEST
from garcon_jupyter.errors import BadData

_BLOCK = 1 << 26
"""Bytes copied at a time."""


def copy(
    path: Path | StoreAddress,
    facts: Mapping[str, Any],
    points: Sequence[PointRows],
    to: Path | StoreAddress,
) -> None:
    """Copy a store, unless it is there.

    Args:
        path: of the store.
        facts: its manifest.
        points: the rows of its points.
        to: where.

    Raises:
        BadData: a file is damaged; or there is something else already.
        Unreachable: an address does not answer.
    """
    there = files_in(to)
    if MANIFEST in there:
        if journal.get(to / MANIFEST) != facts:
            raise BadData(f"There is another store in {to}.", "Give another place.")
        return
    names = [name for name in files_in(path) if name.endswith(".jsonl")]
    files = [part.name for rows in points for group in rows.groups for part in group.parts]
    halves = {name for name in there if name.endswith(".writing")}
    if others := set(there) - {*names, *files} - halves:
        raise BadData(f"{to} holds {min(others)} already.", "Give another place.")
    for name in (*files, *names):
        if name not in files or there.get(name) != opened(path / name).size:
            _copy(path / name, to / name)
    for rows in points:
        PointRows(to, rows.point, facts["points"][rows.point], whole=True).verify()
    _copy(path / MANIFEST, to / MANIFEST)


def _copy(source: Path | StoreAddress, target: Path | StoreAddress) -> None:
    """Copy a file, whole or not at all."""
    if isinstance(target, Path):
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(source, target)
    elif isinstance(source, Path):
        target.put(source)
    else:
        with tempfile.TemporaryDirectory(prefix="garcon-copy-") as folder:
            _fetch(source, Path(folder) / "file")
            target.put(Path(folder) / "file")


def _fetch(source: Path | StoreAddress, target: Path) -> None:
    file, temporary = opened(source), target.with_name(f"{target.name}.writing")
    try:
        with temporary.open("wb") as stream:
            for first in range(0, file.size, _BLOCK):
                stream.write(file.part(first, min(first + _BLOCK, file.size)))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        file.close()
