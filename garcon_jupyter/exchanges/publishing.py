"""A store that is made in a directory, and is wanted at an address: its files are there already, what says of them comes last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from garcon_jupyter.activation_stores import journal, making
from garcon_jupyter.activation_stores.addresses import StoreAddress
from garcon_jupyter.activation_stores.writing import MANIFEST
from garcon_jupyter.errors import BadData
from garcon_jupyter.exchanges.alone import clear


def is_there(target: StoreAddress, directory: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the store is at its address already.

    Args:
        directory: in which it is made.
        facts: its manifest.

    Raises:
        BadData: another store is, or something else.
    """
    there = target.sizes()
    if MANIFEST in there:
        making.check_same(target, journal.get(target / MANIFEST), facts)
        if directory.exists():
            clear(directory)
            _leave(directory)
        return True
    if there and not (directory / MANIFEST).exists():
        raise BadData(
            f"{target} holds {min(there)} already, and {directory} does not know of it.",
            "Give a new address, or the directory in which it was begun.",
        )
    return False


def put_journals(target: StoreAddress, directory: Path) -> None:
    """Put what says which files are whole, and last the manifest; the directory is done with then."""
    for path in sorted(directory.glob("*.jsonl")):
        (target / path.name).put(path)
    (target / MANIFEST).put(directory / MANIFEST)
    _leave(directory)


def _leave(directory: Path) -> None:
    for path in (*directory.glob("*.jsonl"), directory / MANIFEST):
        path.unlink(missing_ok=True)
