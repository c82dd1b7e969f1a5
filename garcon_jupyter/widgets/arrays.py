"""From any array to the few numbers that can be seen.

A screen has about a thousand columns; a vocabulary has fifty thousand. Where several values must
share one cell of a picture, the cell shows the one of largest magnitude *with its sign* (max-abs
pooling): a single strong unit stays visible however far one zooms out, which a mean would hide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from garcon_jupyter.errors import BadRequest

Floats = NDArray[np.float32]

CELLS = 65_536
"""Most cells sent for one picture of activations: 256 KiB of float32."""


def as_float32(array: Any) -> Floats:
    """A float32 copy of a numpy or torch array (bfloat16, integers, booleans; grad or not).

    NaN and infinities stay; float64 values beyond float32 become infinite.

    Raises:
        BadRequest: the array is complex or holds no numbers.
    """
    if hasattr(array, "detach"):  # a torch tensor, recognised without importing torch
        array = array.detach().cpu()
        if not array.is_complex():
            array = array.float().numpy()
    array = np.asarray(array)
    if np.iscomplexobj(array):
        raise BadRequest("A complex array cannot be drawn.", "Draw its .real, .imag or .abs().")
    with np.errstate(over="ignore"):
        try:
            return np.array(array, dtype=np.float32, order="C")
        except (TypeError, ValueError) as error:
            raise BadRequest(
                f"An array of dtype {array.dtype} holds no numbers that can be drawn.",
                "Give a numpy array or a torch tensor of numbers.",
            ) from error


def pool(values: Floats, size: int, axis: int = -1) -> Floats:
    """Max-abs pooling: along `axis`, each run of `size` values becomes the strongest of them.

    The last run may be shorter. NaN counts as stronger than anything, so that it is never hidden.
    """
    if size <= 1 or values.shape[axis] == 0:
        return values
    values = np.moveaxis(values, axis, -1)
    length = values.shape[-1]
    runs = -(-length // size)
    padding = [(0, 0)] * (values.ndim - 1) + [(0, runs * size - length)]
    grouped = np.pad(values, padding).reshape(*values.shape[:-1], runs, size)
    strongest = np.abs(grouped).argmax(axis=-1, keepdims=True)  # argmax stops at the first NaN
    pooled = np.take_along_axis(grouped, strongest, axis=-1)[..., 0]
    return np.ascontiguousarray(np.moveaxis(pooled, -1, axis))


def head_norms(values: Floats) -> Floats:
    """L2 norm over the last axis: [row, token, head, unit] to [row, token, head].

    Squares are summed in float64, where the square of no float32 overflows.
    """
    squares: NDArray[np.float64] = np.einsum("...d,...d->...", values, values, dtype=np.float64)
    return np.sqrt(squares).astype(np.float32)


def colour_limit(values: Floats) -> float:
    """The magnitude at which colour is full.

    The largest finite magnitude; but where a few outliers (the "massive activations" of residual
    streams) exceed the 99.5th percentile threefold, that percentile, else everything but them
    would look like zero. 1.0 where there is nothing to scale by.
    """
    magnitudes = np.abs(values[np.isfinite(values)])
    largest = float(magnitudes.max(initial=0.0))
    if largest == 0.0:
        return 1.0
    stride = max(1, magnitudes.size // 1_000_000)
    usual = float(np.percentile(magnitudes[::stride], 99.5))
    return usual if 0.0 < usual < largest / 3 else largest
