"""Results of experiments, shown: which axes are drawn, what a cell tells, which rows the table has."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from garcon_jupyter.experiments.result import ExperimentResult

DRAW = torch.Generator().manual_seed(0)


def result(axes: dict[str, tuple[Any, ...]], **more: Any) -> ExperimentResult:
    values = torch.randn([len(labels) for labels in axes.values()], generator=DRAW)
    return ExperimentResult("try", values, axes, **{"says": "a share", **more})


def drawn(widget: Any, sheet: int = 0) -> np.ndarray:
    packed = widget.sheets[sheet]
    shape = len(packed["rows"]), len(packed["columns"])
    return np.frombuffer(packed["values"], "<f4").reshape(shape)


def test_two_axes_are_a_sheet() -> None:
    found = result({"layer": (4, 9), "token": ("The", " cat", " sat")})
    widget = found.show()
    (sheet,) = widget.sheets
    assert np.array_equal(drawn(widget), found.values.numpy())
    assert sheet["rows"] == ["4", "9"] and sheet["row_name"] == "layer" and sheet["signed"]
    assert widget.title == "try: a share"
    widget.selected_row, widget.selected_column = 1, 2
    value = f"{found.values[1, 2]:.4g}"
    assert widget.detail["title"] == f"layer 9 · token  sat: {value}"
    widget.selected_row = -1
    assert widget.detail == {}


def test_one_axis_is_a_row_and_none_a_cell() -> None:
    found = result({"head": (0, 1, 2)})
    widget = found.show()
    assert np.array_equal(drawn(widget), found.values.numpy()[None])
    assert widget.sheets[0]["row_name"] == "try"
    alone = ExperimentResult("total", torch.tensor(3.0), {})
    assert drawn(alone.show()).tolist() == [[3.0]]
    assert "<td>3</td>" in (alone._repr_html_() or "")


def test_few_places_of_other_axes_have_a_sheet_each_in_one_scale() -> None:
    found = result({"part": ("gate", "up"), "layer": (0, 1, 2), "head": (0, 1)})
    widget = found.show()
    assert [sheet["name"] for sheet in widget.sheets] == ["part gate", "part up"]
    for at in (0, 1):
        assert np.array_equal(drawn(widget, at), found.values[at].numpy())
    assert widget.sheets[0]["ticks"] == widget.sheets[1]["ticks"]
    widget.sheet, widget.selected_row, widget.selected_column = 1, 2, 0
    assert widget.detail["title"].startswith("part up · layer 2 · head 0: ")


def test_of_many_the_strongest_is_drawn_and_told() -> None:
    """Of layers with layers, heads behind them: the largest by size, its sign kept; where there is none, none."""
    places = tuple(range(6))
    axes = {"writer layer": (3, 5), "writer head": places, "reader layer": (3, 5, 7)}
    found = result({**axes, "reader head": places})
    found.values[1, :, 0] = float("nan")
    widget = found.show()
    (sheet,) = widget.sheets
    assert (sheet["row_name"], sheet["column_name"]) == ("writer layer", "reader layer")
    assert sheet["name"] == "strongest of writer head and reader head"
    for i in range(2):
        for j in range(3):
            cell = found.values[i, :, j].flatten()
            if (i, j) == (1, 0):
                assert np.isnan(drawn(widget)[i, j])
            else:
                assert drawn(widget)[i, j] == cell[cell.abs().argmax()].item()
    widget.selected_row, widget.selected_column = 0, 2
    behind = found.values[0, :, 2]
    at = divmod(int(behind.abs().argmax()), 6)
    first = f"writer head {at[0]} · reader head {at[1]}: {behind[at]:.4g}; "
    assert widget.detail["title"] == "writer layer 3 · reader layer 7"
    assert widget.detail["text"].startswith(first)


def test_of_long_axes_the_strongest_places_are_drawn() -> None:
    found = result({"neuron": tuple(range(200)), "rank": (1, 2)})
    found.values[:] = found.values.clamp(-2, 2)
    found.values[[7, 150], 1] = torch.tensor([-9.0, 8.0])
    widget = found.show()
    (sheet,) = widget.sheets
    assert len(sheet["rows"]) == 64 and {"7", "150"} <= {*sheet["rows"]}
    assert "neuron the 64 strongest of 200" in sheet["name"]
    row = sheet["rows"].index("150")
    assert drawn(widget)[row, 1] == 8.0
    widget.selected_row, widget.selected_column = row, 1
    assert widget.detail["title"] == "neuron 150 · rank 2: 8"


@pytest.fixture
def with_partners() -> ExperimentResult:
    found = result({"neuron": (0, 1), "rank": (1, 2)})
    found.values[:] = torch.tensor([[-3.0, 1.0], [float("nan"), 2.0]])
    more = {"partner": torch.tensor([[40, 41], [-1, 42]]), "share": torch.tensor([0.5, 0.25])}
    facts = {"names": {"partner": {"40": " <b>", "42": " cat"}}, "limits": ["biases are left out"]}
    return ExperimentResult("connections", found.values, found.axes, "x", facts, more)


def test_what_stands_beside_the_numbers_is_told_with_its_name(
    with_partners: ExperimentResult,
) -> None:
    """In the table, in the frame, and of a selected cell; what has another shape is none of it."""
    html = with_partners._repr_html_() or ""
    rows = [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", html)[1:]]
    assert rows == [
        ["0", "1", "-3", "40 &#x27; &lt;b&gt;&#x27;"],
        ["1", "2", "2", "42 &#x27; cat&#x27;"],
        ["0", "2", "1", "41"],
    ]
    assert "biases are left out" in html
    table = with_partners.to_frame()
    assert table["partner name"].tolist() == [" <b>", "", " cat"]
    widget = with_partners.show()
    widget.selected_row, widget.selected_column = 1, 1
    assert widget.detail == {"title": "neuron 1 · rank 2: 2", "text": "partner 42 ' cat'"}


def test_a_still_picture_is_left_in_the_notebook(with_partners: ExperimentResult) -> None:
    still = with_partners.show().still()
    assert "<img" in still and "connections: x" in still
