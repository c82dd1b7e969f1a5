"""What encode, decode and passes may be given; all else gets a sentence, of a type of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter import RemoteModel, Tokens
from garcon_jupyter.errors import BadRequest, BadTokens
from tests.oracle import Plain

TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Sure,"}]

WRONG_TEXTS: list[tuple[Any, str]] = [
    (5, "an int"),
    (None, "None"),
    (2.5, "a float"),
    (b"hi", "data.decode"),
    ([], "no text"),
    ([b"hi"], "a bytes among"),
    (["hi", None], "None among"),
    ([["hi"], ["ho"]], "lists in a list"),
    ([464, 3139], "forward"),
    ({"role": "user", "content": "hi"}, "a dict"),
    (TALK, "chat=True"),
    ([TALK], "chat=True"),
    (object(), "an object"),
]

WRONG_CHATS: list[tuple[Any, str]] = [
    ("hi", "a text"),
    (["hi", "ho"], "a text"),
    (5, "an int"),
    (None, "None"),
    ([], "no messages"),
    ([[]], "no messages"),
    ([{"role": "user"}], "has no content"),
    ([{"content": "hi"}], "has no role"),
    ([{"role": 3, "content": "hi"}], "has no role"),
    ([{"role": "user", "content": 5}], "an int for its content"),
    ([TALK[0], "ho"], "is no message"),
    ([TALK, TALK[0]], "a dict"),
    ([5], "an int"),
]

WRONG_IDS: list[Any] = [
    "hi",
    None,
    2.5,
    b"hi",
    {"a": 1},
    ["a"],
    [["a"]],
    [1.5],
    [[1], 2],
    [-1],
    [1 << 40],
    [True],
    torch.tensor([1.5]),
    torch.zeros(2, 2, 2, dtype=torch.long),
    object(),
]

WRONG_TOKENS: list[Any] = [
    5.5,
    None,
    b"hi",
    {"a": 1},
    {1, 2},
    TALK,
    [[1, 2], [3]],
    [[1, 2], "hi"],
    [1, None],
    [[[1]]],
    [1 << 70],
    [True, False],
    object(),
    len,
    np.array(["a"]),
    Tokens([[1, 2]], None),  # type: ignore[arg-type]
    Tokens(torch.tensor([[1, 2]]), torch.ones(1, 3).bool()),
    {"input_ids": [[1, 2]], "attention_mask": [[1]]},
]


@pytest.mark.parametrize(("given", "said"), WRONG_TEXTS)
def test_what_is_no_text(rmodel: RemoteModel, given: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        rmodel.encode(given)


@pytest.mark.parametrize(("given", "said"), WRONG_CHATS)
def test_what_are_no_messages(rmodel: RemoteModel, given: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said) as refused:
        rmodel.encode(given, chat=True)
    assert "role" in str(refused.value)


@pytest.mark.parametrize("given", WRONG_IDS)
def test_what_are_no_ids(rmodel: RemoteModel, given: Any) -> None:
    with pytest.raises(BadTokens):
        rmodel.decode(given)


@pytest.mark.parametrize("given", WRONG_TOKENS, ids=range(len(WRONG_TOKENS)))
def test_what_are_no_tokens(rmodel: RemoteModel, given: Any) -> None:
    with pytest.raises(BadTokens):
        rmodel.forward(given)
    with pytest.raises(BadTokens):
        rmodel.generate(given)


def test_one_message_is_a_conversation(rmodel: RemoteModel) -> None:
    assert (
        rmodel.encode(TALK[0], chat=True).tolist() == rmodel.encode([TALK[0]], chat=True).tolist()
    )


@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {"add_generation_prompt": False}),
        ({"header": True}, {"add_generation_prompt": True}),
        ({"continue_final": True}, {"continue_final_message": True}),
    ],
)
def test_a_conversation_that_ends_with_the_answer(
    rmodel: RemoteModel, plain: Plain, options: dict[str, bool], theirs: dict[str, bool]
) -> None:
    wanted = plain.tokenizer.apply_chat_template(TALK, tokenize=False, **theirs)
    assert rmodel.decode(rmodel.encode(TALK, chat=True, **options)) == [wanted]


def test_a_question_gets_the_header_of_an_answer(rmodel: RemoteModel, plain: Plain) -> None:
    for options, header in (({}, True), ({"header": False}, False)):
        wanted = plain.tokenizer.apply_chat_template(
            TALK[:1], tokenize=False, add_generation_prompt=header
        )
        assert rmodel.decode(rmodel.encode(TALK[:1], chat=True, **options)) == [wanted]


def test_options_of_chats_that_make_no_sense(rmodel: RemoteModel) -> None:
    with pytest.raises(BadRequest, match="goes on"):
        rmodel.encode(TALK, chat=True, continue_final=True, header=True)
    with pytest.raises(BadRequest, match="chat=True"):
        rmodel.encode("hi", continue_final=True)


def test_what_a_tokenizer_of_transformers_gives_is_tokens(
    rmodel: RemoteModel, plain: Plain
) -> None:
    texts = ["Hello there", "Hi"]
    batch = plain.tokenizer(texts, return_tensors="pt", padding=True)
    logits = rmodel.forward(batch, logits="last")
    assert torch.allclose(logits, rmodel.forward(rmodel.encode(texts), logits="last"), atol=1e-5)
    rows = [torch.tensor([3, 4, 5]), torch.tensor([6, 7, 8])]
    assert torch.equal(rmodel.forward(rows), rmodel.forward(torch.stack(rows)))


def test_strings_of_generated_tokens_are_its_text(rmodel: RemoteModel) -> None:
    answer = rmodel.generate(rmodel.encode(["Hello there", "Hi"]), max_new_tokens=5)
    assert isinstance(answer, garcon.Generated)
    for strings, mask, text in zip(
        rmodel.token_strings(answer), answer.mask.tolist(), rmodel.decode(answer), strict=True
    ):
        assert "".join(s for s, real in zip(strings, mask, strict=True) if real) == text


def test_an_answer_fetched_later_has_its_mask(rmodel: RemoteModel) -> None:
    """Of several samples of unequal prompts each has its own prompt's mask, and ends where it ended."""
    prompts = rmodel.encode(["Hello there", "Hi"])
    asked: dict[str, Any] = {"do_sample": True, "num_return_sequences": 2, "seed": 3}
    answer = rmodel.generate(prompts, max_new_tokens=4, eos_token_id=[], **asked)
    assert answer.lengths == [n + 4 for n in prompts.lengths for _ in range(2)]
    answer = rmodel.generate(
        prompts, max_new_tokens=4, eos_token_id=[], stop_strings=["e"], **asked
    )
    for row, text in enumerate(rmodel.decode(answer)):
        prompt = rmodel.decode(prompts)[row // 2]
        assert "e" not in text[len(prompt) : -1]


def test_seeds_are_whole_numbers(rmodel: RemoteModel) -> None:
    with pytest.raises(BadRequest, match="seed"):
        rmodel.forward([[1]], seed="one")  # type: ignore[arg-type]


def test_tokens_are_an_array_of_their_ids() -> None:
    tokens = Tokens(torch.tensor([[1, 2, 3]]), torch.ones(1, 3).bool())
    for made in (torch.tensor(tokens), torch.as_tensor(tokens), torch.from_dlpack(tokens)):
        assert torch.equal(made, tokens.ids)
    assert np.array_equal(np.asarray(tokens), [[1, 2, 3]])


def test_ids_beyond_the_vocabulary_are_no_text(rmodel: RemoteModel) -> None:
    largest = rmodel.catalog.sizes["V"] - 1
    assert isinstance(rmodel.decode(largest), str)
    with pytest.raises(BadTokens, match=f"{largest + 1} is no token.*from 0 to {largest}"):
        rmodel.decode([[5, largest + 1]])


def test_who_gave_an_option_is_told_which(rmodel: RemoteModel) -> None:
    for wrong in ({"stop_strings": 5}, {"num_beams": 0}, {"penalty_alpha": 0.6, "top_k": 4}):
        with pytest.raises(BadRequest) as refused:
            rmodel.generate([[5, 6]], max_new_tokens=2, **wrong)
        said = str(refused.value)
        assert f"{next(iter(wrong))}={next(iter(wrong.values()))!r}" in said
        assert "config.json says" not in said and "trust_remote_code=True" not in said


def test_metrics_of_a_text_have_names(rmodel: RemoteModel) -> None:
    with pytest.raises(BadRequest, match="metrics is a list, without names"):
        rmodel.show_tokens("a", [1, 2])  # type: ignore[arg-type]
