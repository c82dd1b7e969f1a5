"""Pictures, read back by a decoder of their own."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from garcon_jupyter.agents import drawing
from garcon_jupyter.errors import BadRequest


def pixels(image: bytes) -> np.ndarray:
    """The pixels of a PNG without filters, by the standard; its sums checked."""
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    at, found, width, height = 8, b"", 0, 0
    while at < len(image):
        (size,) = struct.unpack(">I", image[at : at + 4])
        kind, body = image[at + 4 : at + 8], image[at + 8 : at + 8 + size]
        assert struct.unpack(">I", image[at + 8 + size : at + 12 + size])[0] == zlib.crc32(
            kind + body
        )
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour) == (8, 2)
        found += body if kind == b"IDAT" else b""
        at += 12 + size
    rows = np.frombuffer(zlib.decompress(found), np.uint8).reshape(height, 1 + 3 * width)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, 3)


def test_signs_sizes_and_none_have_their_colours() -> None:
    drawn = pixels(drawing.heat_map(np.array([[2.0, -2.0, 0.0], [1.0, np.nan, -1.0]])))
    assert drawn.shape == (2 * 213, 3 * 213, 3)
    cells = drawn[100::213, 100::213]
    assert (cells[0, 0] == (178, 24, 43)).all() and (cells[0, 1] == (33, 102, 172)).all()
    assert (cells[0, 2] == 255).all() and (cells[1, 1] == 190).all()
    assert cells[1, 0][1] == pytest.approx((255 + 24) / 2, abs=1)


def test_text_has_a_letter_for_each_number_and_pools_what_is_large() -> None:
    assert drawing.as_text(np.array([[1.0, 0.0], [-1.0, 0.5]])) == "@ \n@+"
    large = np.zeros((100, 500))
    large[57, 301] = -3
    lines = drawing.as_text(large).split("\n")
    assert len(lines) == drawing.TEXT_ROWS and {len(line) for line in lines} == {
        drawing.TEXT_COLUMNS
    }
    assert "".join(lines).count("@") == 1


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2), (2000, 2), (0, 2)])
def test_what_is_no_picture(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadRequest):
        drawing.heat_map(np.zeros(shape))
