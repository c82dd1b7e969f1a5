"""At which positions of a text an edit acts, while it is read and while a model goes on with it.

Numbers and slices count the tokens of the text that is given (of a generation, its prompt), without padding; negative ones
from its end. What is generated is none of them.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest

if TYPE_CHECKING:
    from torch import Tensor

WORDS = ("all", "given", "last", "generated")

Places = str | int | slice | Sequence[int]
"""``"all"`` tokens; those of the text that is ``"given"``, or its ``"last"``; those that are ``"generated"``; numbers; a slice."""


def checked_places(places: Any) -> Places:
    """Places as a user gave them.

    Raises:
        BadRequest: they are none.
    """
    if isinstance(places, str):
        if places in WORDS:
            return -1 if places == "last" else places
    elif isinstance(places, slice):
        if places.step is None or places.step > 0:
            return places
    elif not isinstance(places, bool):
        try:
            many = places if isinstance(places, Sequence) else [places]
            if many:
                return [operator.index(place) for place in many]
        except TypeError:
            pass
    raise BadRequest(
        f"positions={places!r} are no positions.",
        f"Give {', '.join(WORDS)}, a number, several, or a slice that goes forward.",
    )


class PlaceFinder:
    """Says of each forward which of its tokens are meant. It remembers how long the text was that was given.

    Args:
        places: as :func:`checked_places` returns them.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self._width = 0

    def __call__(self, here: Any) -> Tensor:
        """Which tokens are meant, bool [b, p].

        Raises:
            BadRequest: a text that is given has none of these positions.
        """
        import torch

        ids = here.tokens
        mask = torch.ones_like(ids, dtype=torch.bool) if here.mask is None else here.mask.bool()
        if here.step == 0:
            self._width = mask.shape[1]
        place = mask.long().cumsum(1)[:, -ids.shape[1] :] - 1
        length = mask[:, : self._width].sum(1, keepdim=True)
        meant = self._meant(place, length) & mask[:, -ids.shape[1] :]
        if here.step == 0 and self.places != "generated":
            for row, (some, tokens) in enumerate(zip(meant.any(1), length[:, 0], strict=True)):
                if not some:
                    raise BadRequest(
                        f"Text {row} has {int(tokens)} tokens, and none at {self.places!r}.",
                        "Positions count from 0, negative ones from the end.",
                    )
        return meant

    def _meant(self, place: Tensor, length: Tensor) -> Tensor:
        """Of tokens at places [b, p] of texts of which so many tokens [b, 1] were given."""
        import torch

        places = self.places
        if isinstance(places, slice):
            start = _end(0 if places.start is None else places.start, length)
            stop = length if places.stop is None else _end(places.stop, length)
            return (place >= start) & (place < stop) & ((place - start) % (places.step or 1) == 0)
        if isinstance(places, str):
            given = place < length
            return {"all": torch.ones_like(given), "given": given, "generated": ~given}[places]
        numbers = [places] if isinstance(places, int) else places
        found = torch.zeros_like(place, dtype=torch.bool)
        for number in numbers:
            found |= place == (number if number >= 0 else length + number)
        return found & (place < length)


def _end(end: int, length: Tensor) -> Tensor:
    """An end of a slice, in texts of so many tokens."""
    return length.clamp(max=end) if end >= 0 else (length + end).clamp(min=0)
