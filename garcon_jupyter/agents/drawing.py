"""Heat maps as PNG and as text, by the standard library alone.

Blue is below 0, red above, white 0; grey is no number. Rows and columns are as they are in the array.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from garcon_jupyter.errors import BadRequest

LARGEST = 1024
"""Rows or columns of a picture."""

SIDE = 640
"""Pixels of the longer side, about."""

TEXT_COLUMNS, TEXT_ROWS = 72, 40

SHADES = " .:-=+*#%@"


def heat_map(values: np.ndarray) -> bytes:
    """A matrix as PNG (ISO/IEC 15948).

    Args:
        values: [row, column].

    Raises:
        BadRequest: it is no matrix, or too large.
    """
    _check(values)
    scaled = _scaled(values)
    grey = ~np.isfinite(scaled)
    size = np.where(grey, 0, np.abs(scaled))[..., None]
    towards = np.where((scaled > 0)[..., None], (178, 24, 43), (33, 102, 172))
    pixels = np.rint(255 + (towards - 255.0) * size)
    pixels[grey] = 190
    times = max(1, SIDE // max(values.shape))
    return png(np.repeat(np.repeat(pixels.astype(np.uint8), times, 0), times, 1))


def png(pixels: np.ndarray) -> bytes:
    """An image as PNG.

    Args:
        pixels: uint8 [row, column, 3]: red, green, blue.
    """
    height, width, _ = pixels.shape
    rows = np.concatenate(
        [np.zeros((height, 1), np.uint8), pixels.reshape(height, width * 3)], 1
    )  # each row begins with its filter, of which 0 is none
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def as_text(values: np.ndarray) -> str:
    """A matrix in letters, by size; a large one is pooled by the strongest of each place.

    Raises:
        BadRequest: as :func:`heat_map`.
    """
    _check(values)
    sizes = np.abs(np.nan_to_num(_scaled(values)))
    for axis, most in ((0, TEXT_ROWS), (1, TEXT_COLUMNS)):
        parts = np.array_split(sizes, min(most, sizes.shape[axis]), axis)
        sizes = np.concatenate([part.max(axis, keepdims=True) for part in parts], axis)
    steps = np.minimum((sizes * len(SHADES)).astype(int), len(SHADES) - 1)
    return "\n".join("".join(SHADES[step] for step in row) for row in steps)


def _scaled(values: np.ndarray) -> np.ndarray:
    """Between −1 and 1: by the largest size."""
    wide = values.astype(np.float64)
    wide[~np.isfinite(wide)] = np.nan
    largest = np.nanmax(np.abs(wide)) if np.isfinite(wide).any() else 0.0
    scaled: np.ndarray = wide / (largest or 1.0)
    return scaled


def _check(values: np.ndarray) -> None:
    if values.ndim != 2 or not values.size:
        raise BadRequest(
            f"An array of shape {[*values.shape]} is no matrix.",
            "Give places, until two dimensions are left: rows and columns.",
        )
    if max(values.shape) > LARGEST:
        raise BadRequest(
            f"A picture of {values.shape[0]:,} by {values.shape[1]:,} is not drawn.",
            f"Give places, until there are at most {LARGEST:,} rows and columns.",
        )
