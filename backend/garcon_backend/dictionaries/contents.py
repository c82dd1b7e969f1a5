"""What a format asks of the files, one thing after the other, and what in them contradicts itself.

Each axis has a letter. The first tensor, or the first entry of a configuration, that says how long the axis of a letter is, is
believed; whatever says something else later is refused with both names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor

from garcon_backend.dictionaries.files import AGAIN, Files, StoredArray
from garcon_backend.dictionaries.plan import StoredWeight
from garcon_jupyter.errors import NotADictionary

_MISSING: Any = object()


class Options:
    """A configuration, entry by entry.

    Args:
        entries: of it.
        named: as errors name it.
    """

    def __init__(self, entries: Mapping[str, Any], named: str) -> None:
        self.entries = entries
        self.named = named

    def get(self, key: str, default: Any = _MISSING, among: Collection[Any] = ()) -> Any:
        """An entry.

        Args:
            key: of it.
            default: where there is none.
            among: the values that are known.

        Raises:
            NotADictionary: it is not there, or is something that is not known.
        """
        value = self.entries.get(key, _MISSING)
        if value is _MISSING:
            value = default
        if value is _MISSING:
            raise NotADictionary(
                f"{self.named} lacks {key}, without which its latents cannot be computed.",
                f"Add {key} to it, as it was trained.",
            )
        if among and value not in among:
            known = ", ".join(map(repr, among))
            raise NotADictionary(
                f"{self.named} says {key} = {value!r}, which is not computed here.",
                f"Known are {known}.",
            )
        return value

    def refuse(self, key: str, meaning: str) -> None:
        """Refuse an entry that is set."""
        if self.entries.get(key):
            raise NotADictionary(
                f"{self.named} says {key} = {self.entries[key]!r}: {meaning}.",
                "Fold it into the weights first, or give another.",
            )

    def count(self, key: str, default: Any = _MISSING) -> int:
        """A whole number above 0."""
        value = self.get(key, default)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or value < 1 or int(value) != value:
            raise NotADictionary(
                f"{self.named} says {key} = {value!r}, which is no number of latents.",
                f"Correct {key} in it.",
            )
        return int(value)


class Contents:
    """The tensors of a dictionary's files, taken one by one.

    Attributes:
        sizes: how long the axis of each letter is, and what said so.
        taken: names of the tensors that a format has asked for.
    """

    def __init__(self, files: Files, tensors: dict[str, StoredArray]) -> None:
        self.files = files
        self.tensors = tensors
        self.sizes: dict[str, tuple[int, str]] = {}
        self.taken: set[str] = set()

    def agree(self, letter: str, size: int, named: str) -> None:
        """Note how long an axis is.

        Raises:
            NotADictionary: something else said otherwise.
        """
        known, by = self.sizes.setdefault(letter, (size, named))
        if known != size:
            raise NotADictionary(
                f"{self.files.path} contradicts itself: {by} says {_MEANS.get(letter, letter)} {known}, {named} says {size}.",
                AGAIN,
            )

    def weight(
        self,
        key: str,
        axes: str,
        wanted: str = "",
        function: Callable[[Tensor], Tensor] | None = None,
    ) -> StoredWeight:
        """A tensor that must be there.

        Args:
            key: its name in the file.
            axes: its axes as stored.
            wanted: as the form has them; the same, if nothing is said.
            function: of its numbers.

        Raises:
            NotADictionary: it is not there, or of another shape.
        """
        stored = self.tensors.get(key)
        if stored is None:
            raise NotADictionary(
                f"{self.files.path} lacks the tensor {key} {list(axes)}; it holds {', '.join(sorted(self.tensors)[:8])}.",
                AGAIN,
            )
        self.taken.add(key)
        if len(stored.shape) != len(axes):
            raise NotADictionary(
                f"{key} in {stored.file} is {list(stored.shape)}, not {list(axes)}.", AGAIN
            )
        for letter, size in zip(axes, stored.shape, strict=True):
            if letter != "?":  # an axis of this tensor alone
                self.agree(letter, size, f"{key} {list(stored.shape)}")
        return StoredWeight(stored, axes, wanted or axes, function)

    def optional(self, key: str, axes: str, wanted: str = "") -> dict[str, StoredWeight]:
        """A tensor that may be missing, as keyword of the same name."""
        return {key: self.weight(key, axes, wanted)} if key in self.tensors else {}

    def number(self, key: str) -> float:
        """A single number that is stored as a tensor."""
        return float(self.weight(key, "").stored.read(0, slice(None)).reshape(()))

    def finish(self, ignored: str = r"(?!)") -> None:
        """Refuse files that hold tensors which nobody asked for: they mean something.

        Args:
            ignored: pattern of names that change nothing.
        """
        rest = [
            key for key in self.tensors if key not in self.taken and not re.fullmatch(ignored, key)
        ]
        if rest:
            raise NotADictionary(
                f"{self.files.path} holds {', '.join(rest[:4])}, which this format does not have, and which may change its latents.",
                "Give the dictionary as its library writes it.",
            )

    def size(self, letter: str) -> int:
        """How long the axis of a letter is."""
        return self.sizes[letter][0]

    @property
    def nbytes(self) -> int:
        """Bytes of what was taken."""
        return sum(self.tensors[key].nbytes for key in self.taken)


_MEANS = {"F": "the number of latents is", "D": "the number of inputs is", "O": "the number of outputs is",
          "i": "the number of layers is"}  # fmt: skip
