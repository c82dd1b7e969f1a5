"""What the attention widget sends, read as the browser reads it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import AttentionWidget


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
