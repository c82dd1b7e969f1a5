"""The record of a neuron against counting by hand, and its dashboard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from garcon_jupyter.amounts import share
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import NeuronWidget, neuron_record

NAN = float("nan")
VALUES = [[0.0, 4.0, -1.0], [1.0, NAN, NAN], [2.0, 3.0, 0.5], [-1.0, -2.0, NAN]]
TOKENS = [[" a", " b", "\n"], ["c"], ["d", "e", "f"], ["g", "h"]]


def made(**options: Any) -> dict[str, Any]:
    return neuron_record(VALUES, TOKENS, "n", intervals=2, **options)


def test_a_record_counts_what_it_says() -> None:
    record = made(logits=[("x", -2.0), ("y", 3.0), ("z", 0.0)])
    assert record["density"] == 5 / 9  # 4, 1, 2, 3, 0.5 of nine real tokens
    assert record["largest"] == 4.0
    assert sum(record["histogram"]["counts"]) == 5
    assert [max(e["values"]) for e in record["top"]] == [4.0, 3.0, 1.0]
    high, low = record["intervals"]
    assert (high["low"], high["high"], high["share"]) == (2.0, 4.0, 2 / 5)
    assert [e["tokens"] for e in high["examples"]] == [TOKENS[0], TOKENS[2]]
    assert low["share"] == 3 / 5 and [e["tokens"] for e in low["examples"]] == [["c"]]
    assert record["up"][0] == ["y", 3.0] and record["down"][0] == ["x", -2.0]
    # Quantiles, of equal count, are another thing.
    assert high["share"] != low["share"]


def test_an_example_is_cut_around_its_strongest_token() -> None:
    values = np.zeros((1, 50))
    values[0, 30] = 1
    record = neuron_record(values, [[str(n) for n in range(50)]], context=2)
    assert record["top"][0]["tokens"] == ["28", "29", "30", "31", "32"]


def test_a_text_of_ones_own_is_tried() -> None:
    widget = NeuronWidget(made(), lambda text: (list(text), [1.0] * len(text)), "ab")
    assert widget.worker.wait() and widget.tried == {"tokens": ["a", "b"], "values": [1.0, 1.0]}
    widget.text = "xyz"
    assert widget.worker.wait() and widget.tried["tokens"] == ["x", "y", "z"]
    assert widget.record["top"][0]["tokens"] == [" a", " b", "⏎\n"]


def test_a_record_may_lack_anything_but_fit() -> None:
    assert "<img" in NeuronWidget({"name": "bare"}).still()
    with pytest.raises(BadRequest, match="2 tokens and 1 values"):
        NeuronWidget({"top": [{"tokens": ["a", "b"], "values": [1]}]})
    with pytest.raises(BadRequest, match="4 texts"):
        neuron_record(np.zeros((3, 3)), TOKENS)


def test_the_still_dashboard_has_examples_and_logits(read_svg: Callable[[str], str]) -> None:
    svg = read_svg(NeuronWidget(made(logits=[("up!", 1.0), ("down!", -1.0)])).still())
    assert "up!" in svg and "down!" in svg and ">⏎<" in svg
    assert "rgba(32,112,220,0.620)" in svg  # the strongest token of all


@pytest.mark.parametrize(
    ("fraction", "of", "said"),
    [
        (1 / 9, 9, "11%"),
        (0.0671, 150, "6.7%"),
        (0.00671, 15_000, "0.671%"),
        (0.5352, 1_000, "53.5%"),
        (0.1234567, 10_000_000, "12.346%"),
        (0.0, 0, "0%"),
        (0.1234567, None, "12.3%"),
    ],
)
def test_a_share_is_as_precise_as_its_sample(fraction: float, of: int | None, said: str) -> None:
    assert share(fraction, of) == said
