"""Every picture has its numbers, by named axes, and can be waited for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from garcon_jupyter import BadRequest, NotFinished, Values
from garcon_jupyter.widgets import (
    ActivationsWidget,
    AttentionWidget,
    DotsWidget,
    LensWidget,
    LiveWidget,
    MembersWidget,
    MovesWidget,
    NeuronMoves,
    NeuronWidget,
    Outcome,
    PatchingWidget,
    Readouts,
    ServerCard,
    ShardingPicture,
    Sheet,
    TokensWidget,
    distribution,
    neuron_record,
    show,
)
from garcon_jupyter.widgets.lens import STATISTICS

RNG = np.random.default_rng(0)
WORDS = ["The", " cat", " sat"]
ACTIVATIONS = RNG.standard_normal((1, 3, 200_000)).astype(np.float32)  # pooled where it is drawn
HEADS = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
PATTERN = np.tril(np.ones((1, 2, 3, 3), np.float32)) / 3
LOGITS = RNG.standard_normal((4, 3, 11))
SWEEP = RNG.standard_normal((4, 3)).astype(np.float32)
RANKS = [
    {"rank": 0, "host": "h", "device": "cpu", "stage": 0, "tp_rank": 0, "replica": 0}
    | {"layers": [0], "parameter_bytes": 7, "memory": 9},
    {"rank": 1, "host": "h", "device": "cpu", "stage": 1, "tp_rank": 0, "replica": 0}
    | {"layers": [1], "parameter_bytes": 8},
]


def live(_text: str, _edits: Any) -> Outcome:
    return Outcome(WORDS, [(" on", 0.75, 0.5), (" by", 0.125, 0.25)])


def lens() -> LensWidget:
    return LensWidget(Readouts.of_logits(LOGITS), WORDS, statistic="entropy")


def patching() -> PatchingWidget:
    by_head = Sheet("by head", SWEEP[:, :2], range(4), range(2), column_name="head")
    return PatchingWidget([Sheet("by position", SWEEP, range(4), WORDS), by_head])


chances = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)

PICTURES: dict[str, tuple[Any, tuple[str, ...], Any]] = {
    "activations": (
        lambda: ActivationsWidget(ACTIVATIONS, [WORDS], unit_name="neuron"),
        ("text", "position", "neuron"),
        ACTIVATIONS,
    ),
    "heads": (
        lambda: ActivationsWidget(torch.tensor(HEADS)),
        ("text", "position", "head", "unit"),
        HEADS,
    ),
    "attention": (
        lambda: AttentionWidget(PATTERN, [WORDS]),
        ("head", "query", "key"),
        PATTERN[0],
    ),
    "dots": (
        lambda: DotsWidget(SWEEP[:, :2], [*"abcdefgh"[: len(SWEEP)]], [*"ABCDEFGH"[: len(SWEEP)]]),
        ("dot", "coordinate"),
        SWEEP[:, :2],
    ),
    "moves": (
        lambda: MovesWidget(NeuronMoves([[0, 1.5], [2, -3.0]], [7, 8], {7: ["a"]})),
        ("move", "what"),
        [[0, 1.5], [2, -3.0]],
    ),
    "members": (
        lambda: MembersWidget({"step1": SWEEP, "step2": -SWEEP}, row_name="layer"),
        ("member", "layer", "column"),
        np.stack([SWEEP, -SWEEP]),
    ),
    "members with sheets": (
        lambda: MembersWidget({"a": PATTERN[0]}, sheet_name="head", row_name="query"),
        ("member", "head", "query", "column"),
        PATTERN,
    ),
    "attention of several texts": (
        lambda: AttentionWidget(np.repeat(PATTERN, 2, 0)),
        ("text", "head", "query", "key"),
        np.repeat(PATTERN, 2, 0),
    ),
    "tokens": (
        lambda: TokensWidget(WORDS, {"loss": SWEEP[0], "rank": SWEEP[1]}),
        ("metric", "position"),
        SWEEP[:2],
    ),
    "lens": (lens, ("layer", "position"), -(chances * np.log(chances)).sum(-1)),
    "patching": (patching, ("layer", "position"), SWEEP),
    "live": (lambda: LiveWidget(live, "x"), ("run", "token"), [[0.75, 0.125], [0.5, 0.25]]),
    "neuron": (
        lambda: NeuronWidget(neuron_record([[1, 2, 3], [4, 1, np.nan]], [WORDS, WORDS])),
        ("example", "position"),
        [[4, 1, np.nan], [1, 2, 3]],
    ),
    "sharding": (
        lambda: ShardingPicture("m", {"tp": 1, "pp": 2, "dp": 1}, RANKS, {}),
        ("rank", "what"),
        [[7, 9], [8, np.nan]],
    ),
    "a view": (
        lambda: show(ACTIVATIONS, ("b", "p", "D"), [WORDS]),
        ("text", "position", "dimension"),
        ACTIVATIONS,
    ),
    "distribution": (lambda: distribution([1.0, 1.0, 2.0]), ("bin",), None),
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_numbers_of_a_picture_are_those_that_were_given(name: str) -> None:
    make, axes, expected = PICTURES[name]
    picture = make()
    values = picture.wait(10).values
    assert isinstance(values, Values) and values.axes == axes and values.name
    if name == "distribution":
        assert int(values.array.sum()) == 3
        return
    assert values.array.shape == np.shape(expected)
    np.testing.assert_allclose(values.array, expected, rtol=1e-5, atol=1e-12)
    if "position" in values.labels:
        assert values.labels["position"][1] in ("·cat", " cat")


def test_numbers_are_a_copy_of_the_sheet_that_is_shown() -> None:
    picture = patching()
    picture.values.array[:] = 0.0
    assert np.array_equal(picture.values, SWEEP)
    assert picture.values.at(layer="2", position=-1) == SWEEP[2, -1]
    assert picture.values_of("by head").axes == ("layer", "head")
    picture.sheet = 1
    assert np.array_equal(picture.values, SWEEP[:, :2])
    with pytest.raises(BadRequest, match="no sheet 'x'.*by position, by head"):
        picture.values_of("x")
    of_lens = lens()
    assert [of_lens.values_of(name).name for name in STATISTICS] == list(STATISTICS)


def test_a_picture_of_no_numbers_says_so() -> None:
    card = ServerCard(dict)
    with pytest.raises(BadRequest, match="ServerCard is no picture of numbers"):
        _ = card.values


def test_waiting_says_when_it_gave_up_and_what_failed() -> None:
    import threading

    gate, picture = threading.Event(), patching()
    picture.later("cell", lambda: gate.wait(10) and None)
    with pytest.raises(
        NotFinished, match=r"<PatchingWidget .* is not finished after 0\.01 seconds"
    ):
        picture.wait(0.01)
    with pytest.raises(TimeoutError):
        picture.wait(0)
    gate.set()
    assert picture.wait() is picture
    picture.later("cell", lambda: 1 / 0 and None)
    with pytest.raises(ZeroDivisionError):
        picture.wait(10)
    assert "ZeroDivisionError" in picture.trouble
    picture.later("cell", lambda: None)
    assert picture.wait(10).trouble == ""
