"""Tokens that are hard to see."""

from __future__ import annotations

import pytest

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets.labels import label, token_labels


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("The", "The"),
        (" cat", "·cat"),
        ("  ", "··"),
        ("", "∅"),
        ("\n\n", "⏎⏎"),
        ("\t", "⇥"),
        ("\x00\x1b", "␀␛"),
        ("🙂", "🙂"),
        ("👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧"),
        (" שלום", "·שלום"),
        ("\u202eevil", "⟨202E⟩evil"),
        ("\u200d", "⟨200D⟩"),
        ("\u0301", "◌\u0301"),
        ("\ud83d", "\ufffd"),
        ("<script>", "<script>"),
    ],
)
def test_every_token_is_something_to_see(token: str, shown: str) -> None:
    assert label(token) == shown
    label(token).encode("utf-8")


def test_without_tokens_positions_are_numbered() -> None:
    assert token_labels(None, 2, 3) == [["0", "1", "2"]] * 2


def test_a_flat_list_is_a_batch_of_one() -> None:
    assert token_labels(["a", "b"], 1, 2) == [["a", "b"]]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([["a", "b"]], "tokens for 1 texts and the array has 2"),
        ([["a", "b"], ["a"]], "Text 1 has 1 tokens and the array 2 positions"),
        ("ab", "tokens is one string"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(tokens: list[list[str]], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        token_labels(tokens, 2, 2)
