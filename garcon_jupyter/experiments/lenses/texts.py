"""Texts as rows of tokens, and how far a fit to them is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from garcon_jupyter.connection.progress import MOMENT, Line, bar, duration
from garcon_jupyter.errors import BadRequest

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client


def token_rows(rmodel: Client, texts: Any) -> list[list[int]]:
    """Each text's tokens, without padding.

    Args:
        texts: a text, texts, or tokens.
    """
    tokens = rmodel._tokens(texts)
    return [
        [token for token, real in zip(row, mask, strict=True) if real]
        for row, mask in zip(tokens.ids.tolist(), tokens.mask.tolist(), strict=True)
    ]


def packed(rows: list[list[int]], length: int) -> list[list[int]]:
    """The same tokens in rows of one length, one text after the other; what is left over at the end is left out.

    Raises:
        BadRequest: they do not fill one row.
    """
    flat = [token for row in rows for token in row]
    whole = [flat[at : at + length] for at in range(0, len(flat) - length + 1, length)]
    if not whole:
        raise BadRequest(
            f"The texts have {len(flat)} tokens in all, which do not fill a row of {length}.",
            f"Give more of them, or length={max(len(flat), 1)}.",
        )
    return whole


def layers_of(wanted: Any, first: int, last: int) -> list[int]:
    """The layers that are asked for, in order; all of them for None.

    Raises:
        BadRequest: there is no such layer, or none is asked for.
    """
    every = range(first, last + 1)
    if wanted is None:
        return [*every]
    chosen = [wanted] if isinstance(wanted, int) else [*wanted]
    wrong = [layer for layer in chosen if layer not in every]
    if wrong or not chosen:
        raise BadRequest(
            f"layers={wanted!r}: there is no map of {wrong[0] if wrong else 'no layer'}.",
            f"Layers with a map are {first} to {last}; the last layer needs none.",
        )
    return sorted(set(chosen))


class Progress:
    """A line that says how much of a fit is done, where that takes more than a moment.

    Args:
        total: of what there is to do.
        what: it is counted in, such as "texts".
        shown: whether the line is shown.
    """

    def __init__(self, total: int, what: str, shown: bool) -> None:
        self._total, self._what, self._shown = total, what, shown
        self._since = time.monotonic()
        self._line: Line | None = None

    def at(self, done: float, told: str = "") -> None:
        """So much is done; and what else is worth a word."""
        took = time.monotonic() - self._since
        if not self._shown or took < MOMENT or not done:
            return
        self._line = self._line or Line()
        left = duration(took / done * (self._total - done))
        share = done / self._total
        self._line.show(
            f"{int(done):,} of {self._total:,} {self._what} {bar(share)} {left} left{told}"
        )

    def end(self, done: int) -> None:
        """It is over, with so much done."""
        took = time.monotonic() - self._since
        if self._line:
            self._line.end(f"{done:,} of {self._total:,} {self._what} in {duration(took)}")
