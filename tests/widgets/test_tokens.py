"""The tokens widget: what is sent, and that a text stays a text."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import traitlets

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import TokensWidget

STRANGE = ["The", " cat", "\n", " sat", " שלום", "🙂", "\ufffd", "\u202e", "", "\t", "日本"]


def test_values_are_sent_exactly() -> None:
    drawn = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    metrics = {"loss": torch.tensor(drawn[0]), "rank": drawn[1].tolist()}
    widget = TokensWidget(list("abcde"), metrics, metric="rank")
    assert np.array_equal(np.frombuffer(widget.numbers, "<f4").reshape(2, 5), drawn)
    assert widget.metrics == ["loss", "rank"] and widget.metric == 1
    assert widget.limits == pytest.approx(np.abs(drawn).max(axis=1))


def test_what_cannot_be_seen_is_shown_and_the_rest_stays_a_text() -> None:
    pieces = TokensWidget(STRANGE, np.zeros(len(STRANGE))).pieces
    assert pieces[:6] == ["The", " cat", "⏎\n", " sat", " שלום", "🙂"]
    assert pieces[6:] == ["\ufffd", "⟨202E⟩", "∅", "⇥", "日本"]


def test_predictions_are_sent_as_words_once() -> None:
    predictions = [[(" on", 0.5), ("\n", 0.25)], [], [("\n", 0.75)]]
    widget = TokensWidget(["a", "b", "c"], [1, 2, 3], predictions)
    assert widget.words == ["·on", "⏎"]
    ids = np.frombuffer(widget.predicted, "<i4").reshape(3, 2)
    assert ids.tolist() == [[0, 1], [-1, -1], [1, -1]]
    chances = np.frombuffer(widget.probabilities, "<f4").reshape(3, 2)
    assert chances.tolist() == [[0.5, 0.25], [0, 0], [0.75, 0]]


def test_four_thousand_tokens_are_small() -> None:
    tokens = [f" w{n % 700}" for n in range(4000)]
    choices = [[(f" w{(n + k) % 700}", 0.1) for k in range(5)] for n in range(4000)]
    widget = TokensWidget(tokens, {"loss": np.ones(4000)}, choices)
    assert len(widget.predicted) + len(widget.probabilities) + len(widget.numbers) == 176_000
    assert len(widget.words) == 700
    assert len(widget.still()) < 250_000


@pytest.mark.parametrize(
    ("metrics", "predictions", "message"),
    [
        ({"loss": [1, 2]}, None, "'loss' has 2 values, and the text has 3 tokens"),
        ({}, None, "There is no metric"),
        ([1, 2, 3], [[]], "predictions for 1 tokens, and the text has 3"),
    ],
)
def test_mistakes_are_told(metrics: object, predictions: object, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        TokensWidget(["a", "b", "c"], metrics, predictions)  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="There is no metric 'b'. There are a"):
        TokensWidget(["x"], {"a": [1]}, metric="b")
    with pytest.raises(traitlets.TraitError, match="metric is 1; there are 1"):
        TokensWidget(["x"], [1]).metric = 1


def test_the_still_text_has_its_tokens_in_place(read_svg: Callable[[str], str]) -> None:
    values = np.linspace(0, 1, len(STRANGE))
    svg = read_svg(TokensWidget(STRANGE, {"loss": values}, title="<b>").still())
    root = ElementTree.fromstring(svg)
    words = [node.text for node in root.iter() if node.get("textLength")]
    assert words == [
        "The",
        " cat",
        "⏎",
        " sat",
        " שלום",
        "🙂",
        "\ufffd",
        "⟨202E⟩",
        "∅",
        "⇥",
        "日本",
    ]
    shades = [
        float(found) for found in re.findall(r'rx="3" fill="rgba\(32,112,220,([\d.]+)\)', svg)
    ]
    # The first value is zero, and so without colour; the last has full colour behind text.
    assert len(shades) == len(STRANGE) - 1 and shades == sorted(shades)
    assert shades[-1] == pytest.approx(0.62)


def test_an_empty_text_has_a_picture() -> None:
    assert "<img" in TokensWidget([], []).still()
