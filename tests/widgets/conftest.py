"""Readers of pictures, written from the formats' definitions and not from the code under test."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

Codes = NDArray[np.uint8]


def _read_png(data: bytes) -> tuple[Codes, Codes]:
    """Indices [height, width] and palette [256, 4] of an indexed, unfiltered PNG."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks: dict[bytes, bytes] = {}
    place = 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        (check,) = struct.unpack(">I", data[place + 8 + length : place + 12 + length])
        assert zlib.crc32(kind + body) == check
        chunks[kind] = body
        place += 12 + length
    width, height, depth, colour_type = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, colour_type) == (8, 3)
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    colours = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
    opacity = np.frombuffer(chunks[b"tRNS"], np.uint8)[:, None]
    return lines[:, 1:], np.concatenate([colours, opacity], axis=1)


def _read_svg(html: str) -> str:
    """The SVG document inside the ``<img>`` of a still picture."""
    found = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert found
    return base64.b64decode(found.group(1)).decode("utf-8")


def _read_rasters(svg: str) -> list[Codes]:
    """The indices of all PNG images inside an SVG, in order."""
    found = re.findall(r'href="data:image/png;base64,([^"]+)"', svg)
    return [_read_png(base64.b64decode(data))[0] for data in found]


@pytest.fixture
def read_png() -> Callable[[bytes], tuple[Codes, Codes]]:
    return _read_png


@pytest.fixture
def read_svg() -> Callable[[str], str]:
    return _read_svg


@pytest.fixture
def read_rasters() -> Callable[[str], list[Codes]]:
    return _read_rasters
