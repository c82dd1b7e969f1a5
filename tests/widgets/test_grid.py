"""Lens and patching: statistics against float64 arithmetic, colours against the meaning of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import LensWidget, PatchingWidget, Readouts, Sheet
from garcon_jupyter.widgets.lens import STATISTICS

LOGITS = np.random.default_rng(0).standard_normal((4, 3, 11)) * 3


def values_of(widget: Any, sheet: int) -> NDArray[np.float32]:
    packed = widget.sheets[sheet]
    return np.frombuffer(packed["values"], "<f4").reshape(
        len(packed["rows"]), len(packed["columns"])
    )


def codes_of(widget: Any, sheet: int) -> NDArray[np.uint8]:
    packed = widget.sheets[sheet]
    return np.frombuffer(packed["codes"], np.uint8).reshape(
        len(packed["rows"]), len(packed["columns"])
    )


@pytest.mark.parametrize("answers", [None, [1, 2, 3]])
def test_statistics_are_those_of_the_definitions(answers: Any) -> None:
    readouts = Readouts.of_logits(LOGITS.astype(np.float32), answers)
    logs = torch.tensor(LOGITS).float().double().log_softmax(-1).numpy()
    wanted = logs[-1].argmax(-1) if answers is None else np.array(answers)
    for layer in range(4):
        for token in range(3):
            row, last = logs[layer, token], logs[-1, token]
            expected = [
                np.exp(row.max()),
                np.exp(row[wanted[token]]),
                sorted(-row).index(-row[wanted[token]]),
                -sum(np.exp(x) * x for x in row),
                sum(np.exp(y) * (y - x) for x, y in zip(row, last, strict=True)),
            ]
            assert np.allclose(readouts.statistics[layer, token], expected, atol=1e-6)
            assert readouts.ids[layer, token, 0] == row.argmax()
    backwards = (np.exp(logs[0]) * (logs[0] - logs[-1])).sum(-1)
    assert not np.allclose(readouts.statistics[0, :, 4], backwards, rtol=0.01)


def test_a_lens_shows_words_and_every_statistic() -> None:
    readouts = Readouts.of_logits(LOGITS)
    widget = LensWidget(
        readouts, ["a", " b", "\n"], lambda token: f" w{token}", statistic="entropy"
    )
    assert [sheet["name"] for sheet in widget.sheets] == list(STATISTICS)
    assert widget.sheet == 3
    for place in range(5):
        assert np.array_equal(values_of(widget, place), readouts.statistics[..., place])
    ids = np.frombuffer(widget.tops, "<i4").reshape(4, 3, 5)
    assert widget.words[ids[2, 1, 0]] == f"·w{LOGITS[2, 1].argmax()}"
    assert widget.sheets[0]["columns"] == ["a", "·b", "⏎"]


def test_a_lens_that_fills_shows_what_has_come() -> None:
    whole = Readouts.of_logits(LOGITS)
    part = Readouts.missing(4, 3)
    for here, there in zip(
        (part.statistics, part.ids, part.probabilities),
        (whole.statistics, whole.ids, whole.probabilities),
        strict=True,
    ):
        here[2:] = there[2:]
    widget = LensWidget(part, ["a", " b", "\n"], lambda token: f" w{token}")
    tops = np.frombuffer(widget.tops, "<i4").reshape(4, 3, 5)
    assert (tops[:2] == -1).all() and (tops[2:] >= 0).all()
    assert widget.words[tops[2, 1, 0]] == f"·w{LOGITS[2, 1].argmax()}"
    assert (codes_of(widget, 0)[:2] == 128).all() and np.isnan(values_of(widget, 3)[:2]).all()
    early = widget.still()
    widget.fill(whole)
    tops = np.frombuffer(widget.tops, "<i4").reshape(4, 3, 5)
    assert widget.words[tops[0, 2, 0]] == f"·w{LOGITS[0, 2].argmax()}"
    for place in range(5):
        assert np.array_equal(values_of(widget, place), whole.statistics[..., place])
    assert widget.still() != early


def test_a_rank_of_zero_has_the_strongest_colour() -> None:
    sheet = Sheet("rank", np.array([[0.0, 1.0, 99.0, np.nan]]), ["0"], list("abcd"), scale="rank")
    assert sheet.codes().tolist()[0][0] == 255
    assert 255 > sheet.codes()[0, 1] > sheet.codes()[0, 2] == 128 == sheet.codes()[0, 3]
    assert sheet.ticks()[-1] == (1.0, "0")


def test_colours_of_a_sweep_are_by_sign_and_missing_cells_are_empty() -> None:
    values = np.array([[0.5, -1.0], [np.nan, 2.0]])
    widget = PatchingWidget([Sheet("sweep", values, range(2), ["a", "b"], limit=1.0)])
    assert codes_of(widget, 0).tolist() == [[128 + 64, 1], [128, 255]]
    widget.fill(0, 1, [0.0, 0.25])
    assert values_of(widget, 0).tolist() == [[0.5, -1.0], [0.0, 0.25]]


def test_a_click_runs_the_cell_and_the_last_click_counts() -> None:
    asked = []

    def rerun(sheet: int, row: int, column: int) -> dict[str, Any]:
        asked.append((sheet, row, column))
        return {"title": f"{row}, {column}", "rows": []}

    sheets = [Sheet("s", np.zeros((3, 4)), range(3), "abcd") for _ in range(2)]
    widget = PatchingWidget(sheets, rerun)
    widget.sheet = 1
    widget.selected_row = 2
    assert widget.worker.wait() and asked == []  # no column yet
    for column in range(4):
        widget.selected_column = column
    assert widget.worker.wait()
    assert asked[-1] == (1, 2, 3) and widget.detail["title"] == "2, 3"
    assert not widget.busy and widget.trouble == ""


def test_an_error_of_a_cell_is_shown_and_the_next_click_works() -> None:
    def rerun(sheet: int, row: int, column: int) -> dict[str, Any]:
        if column == 0:
            raise BadRequest("No such cell.", "Take another.")
        return {"title": "well"}

    widget = PatchingWidget([Sheet("s", np.zeros((1, 2)), ["0"], "ab")], rerun)
    widget.selected_row, widget.selected_column = 0, 0
    assert widget.worker.wait() and "No such cell" in widget.trouble
    widget.selected_column = 1
    assert widget.worker.wait() and (widget.trouble, widget.detail) == ("", {"title": "well"})


def test_mistakes_are_told() -> None:
    with pytest.raises(
        BadRequest, match=r"'s' has shape \(2, 2\), and the grid 3 layers × 1 tokens"
    ):
        Sheet("s", np.zeros((2, 2)), range(3), "a")
    with pytest.raises(BadRequest, match="no sheets"):
        PatchingWidget([])
    with pytest.raises(BadRequest, match=r"Logits of 2 axes"):
        Readouts.of_logits(LOGITS[0])
    with pytest.raises(BadRequest, match="There is no statistic 'kl'"):
        LensWidget(Readouts.of_logits(LOGITS), "abc", statistic="kl")


def test_the_still_grid_has_its_first_row_at_the_bottom(
    read_svg: Callable[[str], str], read_rasters: Callable[[str], list[NDArray[np.uint8]]]
) -> None:
    sheet = Sheet("s", [[1.0, 0.0], [0.0, -1.0]], ["first", "second"], ["a", "b"])
    cells, scale = read_rasters(read_svg(PatchingWidget([sheet]).still()))
    assert cells.tolist() == [[128, 1], [255, 128]]
    assert scale.shape == (1, 255)
    noise = np.random.default_rng(0).random((80, 3000))
    wide = Sheet("noise", noise, range(80), [f"t{n}" for n in range(3000)], scale="positive")
    assert len(PatchingWidget([wide]).still()) < 150_000
