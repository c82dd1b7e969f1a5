"""What all live widgets share, and that they stand in a saved notebook."""

from __future__ import annotations

import numpy as np
import pytest

from garcon_jupyter.widgets import (
    ActivationsWidget,
    AttentionWidget,
    NeuronWidget,
    TokensWidget,
    link,
)


def test_layers_are_loaded_when_they_are_chosen() -> None:
    asked: list[int] = []

    def load(layer: int) -> np.ndarray:
        asked.append(layer)
        return np.full((1, 2, 3, 3), layer / 10)

    widget = AttentionWidget(load(4), [["a", "b", "c"]], layers=8, layer=4, load=load)
    widget.selected_head = 1
    widget.layer = 7
    assert widget.worker.wait() and asked == [4, 7]
    assert np.allclose(np.frombuffer(widget.matrix, "<f4"), 0.7) and widget.matrix_head == 1
    with pytest.raises(Exception, match="layer is 8; it goes from 0 to 7"):
        widget.layer = 8


def test_a_layer_of_a_model_is_under_a_megabyte() -> None:
    widget = AttentionWidget(np.random.default_rng(0).random((1, 9, 128, 128)))
    widget.selected_head = 0
    assert len(widget.thumbnails) + len(widget.matrix) == 9 * 128 * 128 + 4 * 128 * 128 < 2**20


def test_a_layer_of_another_shape_is_refused_and_the_old_one_stays() -> None:
    widget = AttentionWidget(
        np.ones((1, 2, 3, 3)), layers=2, load=lambda layer: np.ones((1, 2, 4, 4))
    )
    before = widget.thumbnails
    widget.layer = 1
    assert widget.worker.wait() and "Layer 1 has shape (1, 2, 4, 4)" in widget.trouble
    assert widget.thumbnails == before


def test_what_has_tokens_can_be_linked() -> None:
    tokens = TokensWidget(list("abc"), [1, 2, 3])
    link(tokens, ActivationsWidget(np.zeros((1, 3, 4))), AttentionWidget(np.ones((1, 1, 3, 3))))
    with pytest.raises(TypeError, match="NeuronWidget has no selected token"):
        link(tokens, NeuronWidget({}))


def test_a_closed_picture_leaves_no_widget_and_no_link() -> None:
    from ipywidgets.widgets import widget as registry

    before = set(registry._instances)
    tokens, activations = (
        TokensWidget(list("abc"), [1, 2, 3]),
        ActivationsWidget(np.zeros((1, 3, 4))),
    )
    link(tokens, activations)
    names = {type(each).__name__ for key, each in registry._instances.items() if key not in before}
    assert {"TokensWidget", "ActivationsWidget", "Link"} <= names
    tokens.close()
    left = {type(each).__name__ for key, each in registry._instances.items() if key not in before}
    assert "ActivationsWidget" in left and not left & {"TokensWidget", "Link"}
    activations.close()
    left = {type(each).__name__ for key, each in registry._instances.items() if key not in before}
    assert "ActivationsWidget" not in left


def test_a_histogram_stands_beside_the_activations() -> None:
    drawn = np.random.default_rng(0).standard_normal((2, 5, 30)).astype(np.float32)
    widget = ActivationsWidget(drawn)
    counts = np.frombuffer(widget.counts, "<i4")
    expected, _ = np.histogram(drawn[0].astype(np.float64), 81, widget.spread)
    assert np.array_equal(counts, expected) and widget.counted == 150
    widget.row = 1
    assert widget.spread == (float(drawn[1].min()), float(drawn[1].max()))
    assert "<img" in widget.still() and repr(widget) == "<ActivationsWidget 2 × 5 × 30>"
