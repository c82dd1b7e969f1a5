"""What a format declares: how its files look, its classes, and how they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from garcon_backend.dictionaries.files import Files
from garcon_backend.dictionaries.plan import ReadingPlan
from garcon_jupyter.dictionaries import Form


@dataclass(frozen=True)
class Format:
    """One library's layout.

    Attributes:
        name: of it.
        library: package and release whose own numbers the tests hold it against.
        files: how its files look, one phrase.
        kinds: each class that is read, by the library's own name, with what it computes where nothing else is said.
        refused: each class that is not read, and why.
        recognises: whether files have this layout, by their names and keys.
        read: what they hold.
    """

    name: str
    library: str
    files: str
    kinds: dict[str, Form]
    recognises: Callable[[Files], bool]
    read: Callable[[Files], ReadingPlan]
    refused: dict[str, str]
