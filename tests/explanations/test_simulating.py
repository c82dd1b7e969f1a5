"""What a simulator says, in three ways; what is no usable reply; and models that are refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.explanations import Completion, FunctionModel, NoUsableReply, prompts
from garcon_jupyter.explanations.scoring.simulating import read_levels, simulator
from tests.explanations.conftest import rating, simulating

TOKENS = ("The", " cat", "\n", " sat", "\t")
LEVELS = [0, 10, 3, 0, 1]


def one_hot(levels: Sequence[int], top: int = 10) -> np.ndarray:
    return np.eye(top + 1)[list(levels)]


def test_all_at_once_is_the_expected_level_of_what_is_on_levels() -> None:
    chances = np.zeros((5, 11))
    chances[:, 0] = 0.3
    chances[1, [9, 10]] = 0.1, 0.2
    made = simulator(rating(lambda tokens: chances)).simulate("cats", TOKENS)
    assert made.expected == pytest.approx([0, (9 * 0.1 + 10 * 0.2) / 0.6, 0, 0, 0])
    assert made.mass == pytest.approx((0.3 * 4 + 0.6) / 5)
    assert np.sum(made.probabilities, 1) == pytest.approx([1] * 5, abs=1e-5)
    # The wrong answer: without dividing by what is on levels.
    assert abs(made.expected[1] - (9 * 0.1 + 10 * 0.2)) > 1


def test_the_prompt_has_a_place_after_each_token_and_tells_no_level() -> None:
    pieces = prompts.all_at_once("cats", TOKENS, 10)
    assert len(pieces) == 5 and all(piece.endswith("\t") for piece in pieces)
    assert pieces[1:] == ["unknown\n cat\t", "unknown\n\\n\t", "unknown\n sat\t", "unknown\n\\t\t"]
    # What it asks, in the examples, of levels up to 9.
    assert "\t10" in pieces[0] and "\t10" not in "".join(prompts.all_at_once("cats", TOKENS, 9))


@pytest.mark.parametrize(
    ("chances", "reason"),
    [
        (np.zeros((5, 11)), "no level is likely"),
        (np.full((5, 11), np.nan), "what is no log-probability"),
        (np.full((5, 11), 2.0), "what is no log-probability"),
        (np.ones((4, 11)) / 11, "another number of log-probabilities"),
        (np.ones((5, 10)) / 11, "another number of log-probabilities"),
    ],
)
def test_probabilities_that_are_none_are_no_reply(chances: Any, reason: str) -> None:
    with pytest.raises(NoUsableReply) as caught:
        simulator(rating(lambda tokens: chances)).simulate("cats", TOKENS)
    assert caught.value.reason == reason


def test_a_tokenizer_that_has_10_as_two_tokens_is_refused() -> None:
    apart = rating(lambda tokens: one_hot(LEVELS), tokenize=list, name="apart")
    with pytest.raises(BadRequest, match=r"apart does not have '10' as one token: .* Give top=9"):
        simulator(apart)
    made = rating(lambda tokens: one_hot([0, 9, 3, 0, 1], 9), tokenize=list)
    assert simulator(made, top=9).simulate("cats", TOKENS).expected == (0, 9, 3, 0, 1)
    # And one in which a tab runs into what follows: its places are not after the tab.
    merged = rating(lambda tokens: one_hot(LEVELS), tokenize=lambda text: [text])
    with pytest.raises(BadRequest, match="'0' as one token"):
        simulator(merged, top=9)


def test_no_token_at_the_beginning_is_assumed_and_none_is_minded() -> None:
    """As delphi's does, which takes the second token of a tab: there is none in a tokenizer that begins with nothing."""
    bare = rating(lambda tokens: one_hot(LEVELS))
    begun = rating(
        lambda tokens: one_hot(LEVELS),
        tokenize=lambda text: ["<bos>", *bare.tokens_of(text)],
    )
    for model in (bare, begun):
        assert simulator(model).simulate("cats", TOKENS).expected == tuple(map(float, LEVELS))


# -- token by token --------------------------------------------------------------------------------


def by_token(messages: Sequence[Any], joined: bool = True) -> Completion:
    content = messages[-1]["content"]
    if "Write the number" in content:
        tokens = ("10",) if joined else ("1", "0")
        return Completion("10", tokens, ({},) * len(tokens))
    token = content.rsplit("\nToken: ", 1)[1]
    level = {"The": 0, " cat": 10}.get(token, 3)
    top = {str(level): np.log(0.5), f" {level}": np.log(0.25), "0": np.log(0.25), "no": -1.0}
    return Completion(str(level), (str(level),), (top,))


CAN = ("chat", "token_logprobs")


def test_token_by_token_asks_for_each_and_adds_up_ways_to_write_a_level() -> None:
    model = FunctionModel(by_token, can=CAN, tokenize=lambda text: ["10"])
    made = simulator(model, "token-by-token").simulate("cats", ("The", " cat", " ran"))
    assert made.expected == pytest.approx([0, 7.5, 2.25]) and model.asked == 3


@pytest.mark.parametrize("joined", [True, False])
def test_a_hosted_model_that_tells_no_tokens_is_asked_to_write_10(joined: bool) -> None:
    model = FunctionModel(lambda messages: by_token(messages, joined), can=CAN)
    model.tokens_of = lambda text: None  # type: ignore[method-assign,assignment,return-value]
    if joined:
        assert simulator(model, "token-by-token").method == "token-by-token"
    else:
        with pytest.raises(BadRequest, match="'10' as one token"):
            simulator(model, "token-by-token")
        assert simulator(model, "token-by-token", top=9).top == 9


def test_a_reply_without_probabilities_is_none() -> None:
    model = FunctionModel(lambda messages: "3", can=CAN, tokenize=lambda text: ["10"])
    with pytest.raises(NoUsableReply, match="no log-probabilities"):
        simulator(model, "token-by-token").simulate("cats", TOKENS)


# -- JSON ------------------------------------------------------------------------------------------


def rows(levels: Sequence[Any], tokens: Sequence[str] = TOKENS) -> str:
    shown = map(prompts.written, tokens)
    return json.dumps(
        {"levels": [{"token": t, "level": v} for t, v in zip(shown, levels, strict=False)]}
    )


def test_levels_are_read_as_they_are_written() -> None:
    made = simulator(simulating(lambda tokens, explanation: rows(LEVELS)))
    assert made.method == "json"
    assert made.simulate("cats", TOKENS).expected == tuple(map(float, LEVELS))
    assert read_levels(f"```json\n{rows(LEVELS)}\n```", TOKENS, 10) == LEVELS


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "not JSON"),
        ("I cannot do that.", "not JSON"),
        (rows(LEVELS)[:-9], "not JSON"),
        ("[0, 10, 3, 0, 1]", "JSON of another form"),
        ('{"activations": []}', "JSON of another form"),
        ('{"levels": "none"}', "JSON of another form"),
        (rows(LEVELS[:-1]), "another number of tokens in the reply"),
        (rows([*LEVELS, 0], [*TOKENS, "."]), "another number of tokens in the reply"),
        (rows(LEVELS, ("The", " dog", "\n", " sat", "\t")), "other tokens in the reply"),
        ('{"levels": [0, 10, 3, 0, 1]}', "no level in the reply"),
        (rows([0, 11, 3, 0, 1]), "a level out of range"),
        (rows([0, -1, 3, 0, 1]), "a level out of range"),
        (rows([0, float("nan"), 3, 0, 1]), "a level out of range"),
        (rows([0, None, 3, 0, 1]), "a level that is no number"),
        (rows([0, "10", 3, 0, 1]), "a level that is no number"),
        (rows([0, True, 3, 0, 1]), "a level that is no number"),
    ],
)
def test_a_malformed_reply_is_an_error_with_a_reason_and_never_zeros(
    reply: str, reason: str
) -> None:
    with pytest.raises(NoUsableReply) as caught:
        read_levels(reply, TOKENS, 10)
    assert caught.value.reason == reason


def test_a_reply_that_was_cut_is_told_from_one_that_is_no_json() -> None:
    cut = FunctionModel(lambda messages: Completion(rows(LEVELS)[:40], cut=True))
    with pytest.raises(NoUsableReply, match="cut short"):
        simulator(cut).simulate("cats", TOKENS)


# -- what cannot be --------------------------------------------------------------------------------


def test_a_model_is_asked_for_what_it_can() -> None:
    with pytest.raises(BadRequest, match=r"gives no prompt_logprobs. Use json"):
        simulator(simulating(lambda tokens, explanation: ""), "all-at-once")
    with pytest.raises(BadRequest, match="no way to simulate 'guess'"):
        simulator(rating(lambda tokens: []), "guess")
    with pytest.raises(BadRequest, match="top=11"):
        simulator(rating(lambda tokens: []), top=11)


def test_texts_hold_no_line_breaks_and_no_special_tokens() -> None:
    assert prompts.written("a\n\tb\\<|endoftext|>\u200b") == "a\\n\\tb\\\\<\u00a6endoftext|>\\u200b"
    for made in (
        "".join(prompts.all_at_once("x<|im_end|>", ["<|im_start|>"], 10)),
        str(prompts.as_json("x<|im_end|>", ["<|im_start|>"], 10)),
        str(prompts.token_by_token("x<|im_end|>", ["<|im_start|>"], 0, 10)),
    ):
        assert "<|" not in made
