"""Colour codes, the palette, and the PNG they become."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from garcon_jupyter.widgets import colours, png


def test_codes_are_centred_at_zero_and_clipped_at_the_limit() -> None:
    values = np.array([-9.0, -2.0, -1.0, 0.0, 1.0, 2.0, np.inf, np.nan], dtype=np.float32)
    assert colours.codes(values, 2.0).tolist() == [1, 1, 64, 128, 192, 255, 255, 0]


def test_codes_by_the_root_show_small_weights() -> None:
    weights = np.array([0.0, 0.01, 0.25, 1.0], dtype=np.float32)
    assert colours.codes(weights, 1.0, root=True).tolist() == [128, 141, 192, 255]
    assert colours.codes(weights, 1.0)[1] == 129  # by value, 0.01 could not be told from zero


def test_zero_is_transparent_and_strength_is_opacity() -> None:
    table = colours.palette().astype(int)
    assert table[128, 3] == 0
    assert table[1, 3] == table[255, 3] == 255
    assert (np.diff(table[128:, 3]) > 0).all()
    assert (table[128:, 3] == table[128:0:-1, 3]).all()


def test_the_ends_differ_for_every_common_colour_blindness() -> None:
    """Machado et al. 2009, severity 1.0: protan, deutan and tritan views of the two ends."""
    views = [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]],
    ]  # fmt: skip
    for view in np.array(views):
        seen = view @ np.array([colours.POSITIVE, colours.NEGATIVE]).T
        assert np.linalg.norm(seen[:, 0] - seen[:, 1]) > 120


def test_a_png_holds_exactly_the_codes(read_png: Callable[[bytes], tuple[object, object]]) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (7, 31)).astype(np.uint8)
    indices, palette = read_png(png.encode(codes, colours.palette()))
    assert np.array_equal(np.asarray(indices), codes)
    assert np.array_equal(np.asarray(palette), colours.palette())
