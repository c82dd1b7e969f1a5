"""What the attention widget sends, read as the browser reads it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import AttentionWidget, overview


def scores(heads: int, length: int, masked: float = -np.inf) -> NDArray[np.float32]:
    drawn = np.random.default_rng(0).standard_normal((1, heads, length, length)) * 3
    return np.where(np.tril(np.ones((length, length))) > 0, drawn, masked).astype(np.float32)


def softmax(values: NDArray[np.float32]) -> NDArray[np.float32]:
    grown = np.exp(values - values.max(axis=-1, keepdims=True))
    return (grown / grown.sum(axis=-1, keepdims=True)).astype(np.float32)


def thumbnails(widget: AttentionWidget) -> NDArray[np.uint8]:
    return np.frombuffer(widget.thumbnails, np.uint8).reshape(widget.heads, *widget.thumbnail_shape)


def test_thumbnails_are_the_codes_of_the_weights() -> None:
    pattern = softmax(scores(3, 7))
    widget = AttentionWidget(pattern)
    assert (widget.limit, widget.root) == (1.0, True)
    assert np.array_equal(thumbnails(widget), 128 + np.round(127 * np.sqrt(pattern[0])))


def test_an_open_head_is_sent_exactly() -> None:
    pattern = softmax(scores(3, 7))
    widget = AttentionWidget(pattern)
    assert (widget.matrix, widget.matrix_head) == (b"", -1)
    widget.selected_head = 2
    assert np.array_equal(np.frombuffer(widget.matrix, "<f4").reshape(7, 7), pattern[0, 2])
    assert widget.matrix_head == 2


def test_a_layer_of_nine_heads_and_128_tokens_is_far_under_a_megabyte() -> None:
    widget = AttentionWidget(softmax(scores(9, 128)), [[f" token{n}" for n in range(128)]])
    widget.selected_head = 0
    state = widget.get_state()
    total = sum(
        len(value) if isinstance(value, bytes) else len(repr(value)) for value in state.values()
    )
    assert total < 300_000


@pytest.mark.parametrize("masked", [-np.inf, np.finfo(np.float32).min, -65504.0, -1e4])
def test_masked_scores_neither_scale_nor_colour_nor_pool(masked: float) -> None:
    plain = scores(2, 200)
    widget = AttentionWidget(scores(2, 200, masked))
    lower = plain[np.isfinite(plain)]
    assert not widget.root
    assert widget.limit == np.abs(lower).max()
    drawn = thumbnails(widget)
    assert (drawn[:, 0, 1:] == 128).all()  # above the diagonal: nothing
    corner = plain[0, 1, :2, :2]
    strongest = max(corner[np.isfinite(corner)], key=abs)
    assert drawn[1, 0, 0] == 128 + round(float(127 * strongest / widget.limit))
    widget.selected_head = 1
    sent = np.frombuffer(widget.matrix, "<f4").reshape(200, 200)
    assert np.array_equal(sent, plain[0, 1])


def test_queries_of_a_generation_step_are_the_last_keys() -> None:
    widget = AttentionWidget(np.ones((1, 2, 1, 4)) / 4, [["a", "b", "c", "d"]])
    assert (widget.query_labels, widget.key_labels) == (["d"], ["a", "b", "c", "d"])


def test_another_row_with_an_open_head() -> None:
    both = np.concatenate([softmax(scores(2, 4)), softmax(-scores(2, 4, np.inf))])
    widget = AttentionWidget(both, [list("abcd"), list("efgh")])
    widget.selected_head = 1
    widget.row = 1
    assert widget.key_labels == list("efgh")
    assert np.array_equal(np.frombuffer(widget.matrix, "<f4").reshape(4, 4), both[1, 1])


def test_nan_rows_are_shown_as_such() -> None:
    pattern = softmax(scores(1, 3))
    pattern[0, 0, 2] = np.nan
    drawn = thumbnails(AttentionWidget(pattern))
    assert (drawn[0, 2] == 0).all()
    assert (drawn[0, :2] != 0).all()


@pytest.mark.parametrize("shape", [(1, 0, 3, 3), (1, 2, 0, 0), (0, 2, 3, 3)])
def test_an_empty_array_is_no_error(shape: tuple[int, ...]) -> None:
    assert AttentionWidget(np.zeros(shape)).thumbnails == b""


def test_other_ranks_are_refused() -> None:
    with pytest.raises(BadRequest, match="draws 4 axes, and the array has 3"):
        AttentionWidget(np.zeros((2, 3, 3)))


def smalls(widget: AttentionWidget, layer: int) -> NDArray[np.uint8]:
    codes = np.frombuffer(getattr(widget, f"small_{layer}"), np.uint8)
    return codes.reshape(widget.heads, *widget.small_shape)


def test_an_overview_has_every_layer_pooled() -> None:
    layers = [softmax(scores(3, 70) * (layer + 1) / 7) for layer in range(7)]
    widget = AttentionWidget(layers[0], layers=7, load=layers.__getitem__, overview=True)
    assert widget.worker.wait() and widget.trouble == ""
    assert widget.small_shape == (24, 24)  # 70 tokens, three to a cell
    for layer, pattern in enumerate(layers):
        expected = pattern[0, 1, 30:33, 6:9].max()  # the strongest of its nine
        assert smalls(widget, layer)[1, 10, 2] == 128 + np.round(127 * np.sqrt(expected))
    assert repr(widget).endswith("7 layers × 3 heads, 70 × 70 tokens>")


def test_an_overview_of_thirty_layers_costs_nine_kilobytes_each() -> None:
    asked: list[int] = []

    def load(layer: int) -> NDArray[np.float32]:
        asked.append(layer)
        return softmax(scores(9, 128))

    widget = AttentionWidget(load(0), layers=30, load=load)
    assert asked == [0] and all(getattr(widget, f"small_{n}") == b"" for n in range(30))
    widget.overview = True
    assert widget.worker.wait() and asked == [0, *range(30)]
    assert {len(getattr(widget, f"small_{n}")) for n in range(30)} == {9 * 32 * 32}
    assert len(widget.still()) < 150_000


def test_a_head_opened_from_the_overview_is_never_anothers() -> None:
    """While its layer is on its way there is no matrix, and not that of the layer before."""
    layers = [softmax(scores(2, 5) * (layer + 1)) for layer in range(3)]
    go = threading.Event()

    def load(layer: int) -> NDArray[np.float32]:
        assert go.wait(20)
        return layers[layer]

    widget = AttentionWidget(layers[0], layers=3, load=load)
    widget.set_state({"layer": 2, "selected_head": 1, "overview": False})
    assert (widget.matrix, widget.matrix_head, widget.here) == (b"", -1, 0)
    go.set()
    assert widget.worker.wait()
    assert np.array_equal(np.frombuffer(widget.matrix, "<f4").reshape(5, 5), layers[2][0, 1])
    assert (widget.matrix_head, widget.here) == (1, 2)


def test_who_turns_back_while_a_layer_loads_sees_the_one_it_turned_to() -> None:
    layers = [softmax(scores(2, 5) * (layer + 1)) for layer in range(3)]
    begun, go = threading.Event(), threading.Event()

    def load(layer: int) -> NDArray[np.float32]:
        begun.set()
        assert go.wait(20)
        return layers[layer]

    widget = AttentionWidget(layers[0], layers=3, load=load)
    widget.layer = 2
    assert begun.wait(20)
    widget.layer = 0
    go.set()
    assert widget.worker.wait()
    widget.selected_head = 0
    assert np.array_equal(np.frombuffer(widget.matrix, "<f4").reshape(5, 5), layers[0][0, 0])


def test_the_overview_gives_way_to_an_open_head() -> None:
    order: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def load(layer: int) -> NDArray[np.float32]:
        order.append(f"load {layer}")
        return softmax(scores(2, 4))

    def glance(
        layers: Sequence[int], row: int, side: int, hide_first: bool
    ) -> list[NDArray[np.float32]]:
        order.append(f"glance {layers[0]}")
        begun.set()
        assert go.wait(20)
        return [softmax(scores(2, 4))[row]] * len(layers)

    widget = AttentionWidget(
        softmax(scores(2, 4)), layers=12, load=load, glance=glance, overview=True
    )
    assert begun.wait(20)
    widget.layer = 8
    go.set()
    assert widget.worker.wait()
    assert order == ["glance 0", "load 8", "glance 5", "glance 10"]


def test_another_text_is_another_overview() -> None:
    both = np.concatenate([softmax(scores(2, 4)), softmax(-scores(2, 4, np.inf))])
    widget = AttentionWidget(both, layers=2, load=lambda layer: both, overview=True)
    assert widget.worker.wait()
    widget.row = 1
    assert widget.worker.wait()
    assert np.array_equal(smalls(widget, 1), 128 + np.round(127 * np.sqrt(both[1])))


@pytest.mark.parametrize("layers", [1, 4, 30, 96])
def test_all_layers_fit_beside_each_other(layers: int) -> None:
    blocks, tile = overview.arrangement(layers, 12, 900.0, 620.0)
    assert blocks * (24 + 12 * tile) <= 900.001 and -(-layers // blocks) * tile <= 620.001


# -- without the first token ---------------------------------------------------------------------


def sink() -> NDArray[np.float32]:
    """One head over four tokens that rests nine tenths of its weight on the first: [1, 1, 4, 4]."""
    rest = np.tril(np.ones((4, 4)), 0)
    rest[:, 0] = 0
    rest[1:] /= rest[1:].sum(1, keepdims=True)
    weights = 0.1 * rest
    weights[:, 0] = [1.0, 0.9, 0.9, 0.9]
    return weights[None, None].astype(np.float32)


def test_the_first_token_can_be_left_out(read_svg: Callable[[str], str]) -> None:
    widget = AttentionWidget(sink(), ["<s>", "a", "b", "c"])
    with_sink = np.frombuffer(widget.thumbnails, np.uint8).reshape(4, 4)
    assert widget.limit == 1.0 and (with_sink[:, 0] > 245).all()
    widget.hide_first = True
    without = np.frombuffer(widget.thumbnails, np.uint8).reshape(4, 4)
    assert (without[:, 0] == 128).all() and (without[0] == 128).all()
    assert (
        widget.limit == pytest.approx(0.1) and without[1, 1] == 255
    )  # what is left has full colour
    assert with_sink[1, 1] < 170
    widget.selected_head = 0
    assert np.frombuffer(widget.matrix, "<f4")[4] == np.float32(
        0.9
    )  # values stay those of the model
    assert "without the first token" in read_svg(widget.still())
    widget.hide_first = False
    assert widget.limit == 1.0
    assert np.array_equal(np.frombuffer(widget.thumbnails, np.uint8).reshape(4, 4), with_sink)


def test_queries_of_a_generation_are_no_first_tokens() -> None:
    one_query = sink()[:, :, 3:]
    widget = AttentionWidget(one_query, ["<s>", "a", "b", "c"], hide_first=True)
    codes = np.frombuffer(widget.thumbnails, np.uint8).reshape(1, 4)
    assert codes[0, 0] == 128 and (codes[0, 1:] > 200).all()


def test_the_overview_leaves_it_out_too() -> None:
    asked = []

    def glance(
        layers: Sequence[int], row: int, side: int, hide_first: bool
    ) -> list[NDArray[np.float32]]:
        asked.append((list(layers), hide_first))
        return [sink()[0] * (0 if hide_first else 1) for _ in layers]

    widget = AttentionWidget(
        sink(), None, layers=2, load=lambda layer: sink(), glance=glance, overview=True
    )
    widget.worker.wait()
    first = widget.small_0
    widget.hide_first = True
    widget.worker.wait()
    assert [hidden for _, hidden in asked] == [False, True]
    assert widget.small_0 != first
