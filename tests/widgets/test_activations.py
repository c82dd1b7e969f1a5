"""What the activations widget sends, read as the browser reads it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import traitlets
from numpy.typing import NDArray

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import ActivationsWidget, bundle
from garcon_jupyter.widgets.arrays import CELLS


def sent(widget: ActivationsWidget) -> NDArray[np.float32]:
    return np.frombuffer(widget.frame, "<f4").reshape(len(widget.labels), -1)


@pytest.fixture
def values() -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((2, 5, 1536)).astype(np.float32)


def test_small_arrays_are_sent_exactly(values: NDArray[np.float32]) -> None:
    widget = ActivationsWidget(values)
    assert widget.pooled == 1
    assert np.array_equal(sent(widget), values[0])


def test_bfloat16_is_sent_as_torch_widens_it() -> None:
    tensor = torch.randn(1, 3, 40, dtype=torch.bfloat16, generator=torch.manual_seed(0))
    assert np.array_equal(sent(ActivationsWidget(tensor)), tensor[0].float().numpy())


def test_nan_and_infinity_arrive_and_do_not_set_the_scale() -> None:
    widget = ActivationsWidget([[[np.nan, np.inf, -np.inf, 2.0]]])
    assert np.array_equal(sent(widget), np.array([[np.nan, np.inf, -np.inf, 2.0]]), equal_nan=True)
    assert widget.limit == widget.largest == 2.0


@pytest.mark.parametrize("shape", [(1, 0, 8), (1, 4, 0), (0, 4, 8), (1, 0, 0), (1, 3, 0, 4)])
def test_an_empty_array_is_no_error(shape: tuple[int, ...]) -> None:
    assert ActivationsWidget(np.zeros(shape)).frame == b""


def test_one_token_one_unit() -> None:
    widget = ActivationsWidget([[[3.0]]], [["🙂"]])
    assert (sent(widget).tolist(), widget.labels) == ([[3.0]], ["🙂"])


def test_another_row_shows_another_text(values: NDArray[np.float32]) -> None:
    widget = ActivationsWidget(values, [list("abcde"), list("fghij")])
    widget.row = 1
    assert np.array_equal(sent(widget), values[1])
    assert widget.labels == list("fghij")


def test_units_sorted_at_a_token_fall_and_nan_is_last(values: NDArray[np.float32]) -> None:
    values[0, 2, 7] = np.nan
    widget = ActivationsWidget(values)
    widget.sort_token = 2
    order = np.frombuffer(widget.order, "<i4")
    assert np.array_equal(np.sort(order), np.arange(1536))
    assert np.array_equal(sent(widget), values[0][:, order], equal_nan=True)
    falling = sent(widget)[2, :-1]
    assert order[-1] == 7
    assert (np.diff(falling) <= 0).all()
    assert order[0] == np.nanargmax(values[0, 2])


def test_a_vocabulary_is_pooled_and_zooming_brings_real_cells() -> None:
    logits = np.random.default_rng(2).standard_normal((1, 20, 100_003)).astype(np.float32)
    widget = ActivationsWidget(logits)
    assert sent(widget).size <= CELLS
    size = widget.pooled
    for run in (0, 17, sent(widget).shape[1] - 1):
        strongest = max(logits[0, 4, run * size : (run + 1) * size], key=abs)
        assert sent(widget)[4, run] == strongest
    widget.window = (50_000, 50_100)
    assert (widget.detail_pooled, widget.detail_window) == (1, (50_000, 50_100))
    detail = np.frombuffer(widget.detail, "<f4").reshape(20, 100)
    assert np.array_equal(detail, logits[0, :, 50_000:50_100])
    widget.window = (0, 100_003)
    assert widget.detail == b""


def test_zooming_follows_the_sorted_order() -> None:
    logits = np.random.default_rng(3).standard_normal((1, 3, 60_000)).astype(np.float32)
    widget = ActivationsWidget(logits)
    widget.sort_token = 1
    widget.window = (0, 10)
    best = np.sort(logits[0, 1])[::-1][:10]
    assert np.array_equal(np.frombuffer(widget.detail, "<f4").reshape(3, 10)[1], best)


def test_heads_show_their_norm_and_open_to_their_units() -> None:
    z = np.random.default_rng(4).standard_normal((1, 6, 9, 64)).astype(np.float32)
    widget = ActivationsWidget(z, unit_name="unit")
    assert (widget.heads, widget.units) == (9, 9)
    norms = [[sum(float(x) ** 2 for x in z[0, p, h]) ** 0.5 for h in range(9)] for p in range(6)]
    assert np.allclose(sent(widget), norms, rtol=1e-6)
    widget.sort_token = 2
    widget.selected_unit = 8
    widget.head = 5
    assert np.array_equal(sent(widget), z[0, :, 5])
    assert (widget.units, widget.sort_token, widget.selected_unit) == (64, -1, -1)
    widget.head = -1
    assert np.allclose(sent(widget), norms, rtol=1e-6)


def test_a_selection_calls_back(values: NDArray[np.float32]) -> None:
    widget, heard = ActivationsWidget(values), []
    widget.observe(lambda change: heard.append((change["name"], change["new"])), "selected_unit")
    widget.selected_unit = 412
    assert heard == [("selected_unit", 412)]


@pytest.mark.parametrize(("name", "wrong"), [("row", 2), ("head", 0), ("sort_token", 5)])
def test_what_does_not_exist_cannot_be_chosen(
    values: NDArray[np.float32], name: str, wrong: int
) -> None:
    widget = ActivationsWidget(values)
    with pytest.raises(traitlets.TraitError, match=f"{name} is {wrong}"):
        setattr(widget, name, wrong)


def test_the_window_is_kept_inside(values: NDArray[np.float32]) -> None:
    widget = ActivationsWidget(values)
    widget.window = (-5, 99_999)
    assert widget.window == (0, 1536)


def test_other_ranks_are_refused() -> None:
    with pytest.raises(BadRequest, match="draws 3 or 4 axes, and the array has 2"):
        ActivationsWidget(np.zeros((2, 2)))


@pytest.mark.parametrize("name", ["activations", "attention"])
def test_the_module_stands_alone_and_loads_nothing(name: str) -> None:
    text = bundle.module(name) + bundle.style(name)
    assert "import " not in text.replace("important", "")
    assert text.count("export ") == 1
    assert "http" not in text and "url(" not in text
    assert "innerHTML" not in text  # tokens are text, never markup
