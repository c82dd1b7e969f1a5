"""Frames of a recording that stays on the server.

A text's logits are megabytes for each token, and a screen shows a thousand columns. So the server cuts,
pools and sends what is drawn: a frame is two reductions (the largest and the smallest of each run of
units), of which the stronger is kept here.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.client.recordings import Handle
from garcon_jupyter.connection import background
from garcon_jupyter.widgets import Source, arrays
from garcon_jupyter.widgets.sources import SAMPLE, Order

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

LARGE = 8 * 2**20
"""Bytes from which a recording is looked at where it is."""


class RecordedSource(Source):
    """A recording [b, p, units] on the server.

    Args:
        rmodel: where it is.
        handle: of the tensor, which keeps it on the server as long as the source lives.
    """

    at_hand = False

    def __init__(self, rmodel: Client, handle: Handle) -> None:
        assert handle.shape is not None and len(handle.shape) == 3
        self._rmodel, self._handle = rmodel, handle
        self._home = threading.get_ident()
        rows, tokens, units = handle.shape
        self.shape = (rows, tokens, units)
        self._limits: tuple[float, float] | None = None
        self._samples: dict[int, arrays.Floats] = {}

    def frame(
        self, row: int, head: int, first: int, end: int, pooled: int, order: Order | None
    ) -> arrays.Floats:
        text = self._handle[row]
        part = text[:, first:end] if order is None else text[:, order[first:end].tolist()]
        if pooled <= 1:
            return arrays.as_float32(self._fetch(part))
        runs, rest = divmod(end - first, pooled)
        wanted: list[Handle] = []
        if runs:
            body = part[:, : runs * pooled].reshape(self.shape[1], runs, pooled)
            wanted += [body.amax(-1), body.amin(-1)]
        if rest:
            wanted += [part[:, runs * pooled :].amax(-1), part[:, runs * pooled :].amin(-1)]
        found = self._fetch(*wanted)
        pieces = [
            _stronger(found[at], found[at + 1]).reshape(self.shape[1], -1)
            for at in range(0, len(found), 2)
        ]
        return np.ascontiguousarray(np.concatenate(pieces, axis=1))

    def order(self, row: int, head: int, token: int) -> Order:
        values = arrays.as_float32(self._fetch(self._handle[row, token]))
        return np.argsort(-values, kind="stable").astype("<i4")

    def scale(self, head: int) -> tuple[float, float]:
        if self._limits is None:
            sample = self.sample(0, head)
            high, low = self._fetch(self._handle.amax(), self._handle.amin())
            largest = max(abs(float(high)), abs(float(low)))
            if not np.isfinite(largest):  # masked logits: scale by what is finite
                largest = float(np.abs(sample[np.isfinite(sample)]).max(initial=0.0))
            limit = arrays.colour_limit(np.append(sample, np.float32(largest)))
            self._limits = limit, largest
        return self._limits

    def sample(self, row: int, head: int) -> arrays.Floats:
        if row not in self._samples:
            text = self._handle[row].reshape(-1)
            stride = max(1, -(-self.shape[1] * self.shape[2] // (SAMPLE // 4)))
            self._samples[row] = arrays.as_float32(self._fetch(text[::stride]))
        return self._samples[row]

    def _fetch(self, *handles: Handle) -> Any:
        """What the widget's own thread asks for keeps no cell waiting."""
        own = threading.get_ident() != self._home
        with background.beside() if own else contextlib.nullcontext():
            return self._rmodel.fetch(*handles)


def _stronger(high: Any, low: Any) -> arrays.Floats:
    """Of the largest and the smallest value of each run, that of larger magnitude."""
    top, bottom = arrays.as_float32(high), arrays.as_float32(low)
    return np.where(np.abs(bottom) > np.abs(top), bottom, top)


def may_stay(handle: Handle) -> bool:
    """Whether a recording is large, and of a shape that frames can be cut from."""
    return len(handle.shape or ()) == 3 and (handle.nbytes or 0) >= LARGE
