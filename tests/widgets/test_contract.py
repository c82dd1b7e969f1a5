"""What Python's still pictures share with the browser's live ones: colours, words, places, pooling.

Both are held against the same JSON files, whose values :mod:`tests.widgets.contract.reckon` works out from the rules
alone. The other half of this test is ``javascript/contract.test.mjs``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from garcon_jupyter.widgets import arrays, attention, colours, labels, numbers, overview, svg
from tests.widgets.contract import reckon

CONTRACT = Path(reckon.__file__).parent


def cases(file: str, kind: str) -> list[list[Any]]:
    return json.loads((CONTRACT / f"{file}.json").read_text(encoding="utf-8"))[kind]


@pytest.mark.parametrize("file", reckon.FILES)
def test_the_files_are_what_the_rules_come_to(file: str) -> None:
    said = (CONTRACT / f"{file}.json").read_text(encoding="utf-8")
    assert said == reckon.told(file), "Run `python tests/widgets/contract/reckon.py`."


# -- colour --------------------------------------------------------------------------------------


def test_codes() -> None:
    for value, limit, root, code in cases("colours", "codes"):
        found = colours.codes(np.array([value], np.float32), limit, root)
        assert found.tolist() == [code], (value, limit, root)


def test_the_palette_and_what_stands_behind_text() -> None:
    assert colours.palette().tolist() == cases("colours", "palette")
    assert [colours.behind_text(code) for code in range(256)] == cases("colours", "behind_text")


def test_a_half_is_not_rounded_up() -> None:
    """The wrong answer, which JavaScript's Math.round gives: -0.5 one code nearer to zero than 0.5."""
    wrong = [
        code for value, limit, *_, code in cases("colours", "codes") if (value, limit) == (-0.5, 1)
    ]
    assert wrong[0] == 64 and 128 + np.floor(-0.5 * 127 + 0.5) == 65


# -- words ---------------------------------------------------------------------------------------


def test_numbers() -> None:
    for value, figures, said in cases("numbers", "figures"):
        assert numbers.number(float(value), figures) == said
    for value, said in cases("numbers", "cells"):
        assert numbers.short(float(value)) == said
    for value, said in cases("numbers", "percents"):
        assert numbers.percent(float(value)) == said
    for count, noun, said in cases("numbers", "plurals"):
        assert numbers.plural(count, noun) == said


def test_ticks() -> None:
    for limit, root, said in cases("numbers", "ticks"):
        found = numbers.ticks(limit, root)
        assert [words for _, words in found] == [words for _, words in said], (limit, root)
        assert [place for place, _ in found] == pytest.approx([place for place, _ in said])


def test_labels() -> None:
    for token, label, text in cases("labels", "labels"):
        assert (labels.label(token), labels.written(token)) == (label, text)
    for label, room, said in cases("labels", "cut"):
        assert svg.shorten(label, room) == said


# -- places --------------------------------------------------------------------------------------


def test_the_overview_is_arranged() -> None:
    for layers, heads, width, blocks, tile, _ in cases("layout", "overview"):
        found = overview.arrangement(layers, heads, width, 620.0)
        assert found == (blocks, pytest.approx(tile)), (layers, heads, width)


def test_rows_of_tiles_and_steps_of_an_axis() -> None:
    for tiles, widest, across in cases("layout", "across"):
        assert numbers.across(tiles, widest) == across, (tiles, widest)
    assert numbers.across(0, 8) == 1
    for least, step in cases("layout", "steps"):
        assert numbers.round_step(least) == step, least


# -- pooling -------------------------------------------------------------------------------------


def test_a_run_of_values_is_the_strongest_of_them() -> None:
    for row, size, pooled in cases("pooling", "runs"):
        found = arrays.pool(np.array([row], np.float32), size)[0]
        assert np.array_equal(found, np.array(pooled, np.float32), equal_nan=True), (row, size)


def test_what_is_of_the_first_token() -> None:
    for queries, keys, hidden in cases("pooling", "first_token"):
        masked = np.isneginf(attention.without_first(np.ones((1, queries, keys), np.float32))[0])
        assert np.argwhere(masked).tolist() == hidden, (queries, keys)
