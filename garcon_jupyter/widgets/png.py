"""Colour codes to a PNG, with the standard library alone.

An indexed PNG keeps one byte a cell and the palette once, so a heatmap of a thousand columns
compresses to tens of kilobytes. Format: PNG specification, third edition (W3C, 2025), sections 5
and 11 (chunks IHDR, PLTE, tRNS, IDAT, IEND).
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray


def encode(codes: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """The PNG file of `codes` [height, width], both at least 1, through `palette` [256, 4]."""
    height, width = codes.shape
    indexed = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    unfiltered = np.pad(codes, ((0, 0), (1, 0)))  # each line begins with its filter: 0, none
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", indexed),
            _chunk(b"PLTE", palette[:, :3].tobytes()),
            _chunk(b"tRNS", palette[:, 3].tobytes()),
            _chunk(b"IDAT", zlib.compress(unfiltered.tobytes(), 9)),
            _chunk(b"IEND", b""),
        )
    )


def data_uri(data: bytes, media_type: str) -> str:
    """`data` as a ``data:`` address, which a page shows without loading anything."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
