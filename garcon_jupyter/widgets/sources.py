"""Where the activations widget gets its frames from: an array here, or values elsewhere.

A widget never needs all values of a large tensor, only what fits on a screen. A source gives just that:
a range of units, pooled to so many columns; the order of the units by one token; a sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays

Order = NDArray[np.int32]

SAMPLE = 262_144
"""Most values for a histogram of a large text: every so many-th."""


class Source(ABC):
    """Values [row, token, unit], or [row, token, head, unit], of which frames are asked for.

    Attributes:
        shape: rows, tokens, and units (in all, where there are heads).
        heads: number of heads; 0 where units are not in heads.
        width: units of one head; 0 without heads.
        at_hand: whether frames take no time.
    """

    shape: tuple[int, int, int]
    heads: int = 0
    width: int = 0
    at_hand: bool = True

    @abstractmethod
    def frame(
        self, row: int, head: int, first: int, end: int, pooled: int, order: Order | None
    ) -> arrays.Floats:
        """Columns `first` to `end` of one text, [token, ceil((end - first) / pooled)].

        Args:
            row: which text.
            head: whose units; -1 for the norms of all heads, or where there are none.
            first, end: the range of columns.
            pooled: columns that become one, by :func:`~garcon_jupyter.widgets.arrays.pool`.
            order: the unit in each column; None for their natural order.
        """

    def whole(self) -> arrays.Floats:
        """All values, [row, token, unit], or [row, token, head, unit]."""
        rows, tokens, units = self.shape
        texts = [self.frame(row, -1, 0, units, 1, None) for row in range(rows)]
        return np.stack(texts) if texts else np.zeros((0, tokens, units), np.float32)

    @abstractmethod
    def order(self, row: int, head: int, token: int) -> Order:
        """Units in order of falling value at a token; NaN last."""

    @abstractmethod
    def scale(self, head: int) -> tuple[float, float]:
        """Magnitude of full colour and largest magnitude, one for all rows (and all heads)."""

    @abstractmethod
    def sample(self, row: int, head: int) -> arrays.Floats:
        """Values of one text for a histogram, [n]; all, or evenly chosen ones."""


class ArraySource(Source):
    """An array that is here.

    Raises:
        BadRequest: it has another number of axes than 3 or 4, or holds no numbers.
    """

    def __init__(self, array: Any) -> None:
        whole = arrays.as_float32(array)
        if whole.ndim not in (3, 4):
            raise BadRequest(
                f"The activations widget draws 3 or 4 axes, and the array has {whole.ndim}.",
                "Give [row, token, unit] or [row, token, head, unit], or use show().",
            )
        self._whole = whole
        self._norms = arrays.head_norms(whole) if whole.ndim == 4 else None
        self._limits: dict[bool, tuple[float, float]] = {}
        if whole.ndim == 4:
            self.heads, self.width = whole.shape[2:]
        self.shape = (*whole.shape[:2], int(np.prod(whole.shape[2:], dtype=int)))

    def whole(self) -> arrays.Floats:
        return self._whole.copy()

    def _text(self, row: int, head: int) -> arrays.Floats:
        text: arrays.Floats
        if head >= 0:
            text = self._whole[row, :, head]
        else:
            text = self._whole[row] if self._norms is None else self._norms[row]
        return text

    def frame(
        self, row: int, head: int, first: int, end: int, pooled: int, order: Order | None
    ) -> arrays.Floats:
        text = self._text(row, head)
        part = text[:, first:end] if order is None else text[:, order[first:end]]
        return np.ascontiguousarray(arrays.pool(part, pooled))

    def order(self, row: int, head: int, token: int) -> Order:
        return np.argsort(-self._text(row, head)[token], kind="stable").astype("<i4")

    def scale(self, head: int) -> tuple[float, float]:
        one_head = head >= 0
        if one_head not in self._limits:
            every = self._whole if one_head or self._norms is None else self._norms
            finite = np.abs(every[np.isfinite(every)])
            self._limits[one_head] = arrays.colour_limit(every), float(finite.max(initial=0.0))
        return self._limits[one_head]

    def sample(self, row: int, head: int) -> arrays.Floats:
        """Every so many-th value, at most :data:`SAMPLE` of them."""
        values = self._text(row, head).reshape(-1)
        return values[:: max(1, -(-values.size // SAMPLE))]
