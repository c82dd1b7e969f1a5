"""Answers as a model says them, with their space; whoever leaves it out is told."""

from __future__ import annotations

import pytest

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest
from garcon_jupyter.experiments import target_tokens
from garcon_jupyter.experiments.patching import Sweep
from garcon_jupyter.experiments.target_tokens import one_token_each

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPTED = "When Mary and John went to the store, Mary gave a drink to"


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_tokens, "_TOLD", set())


def id_of(model: garcon.RemoteModel, text: str) -> int:
    (ids,) = model.encode(text, special=False).tolist()
    assert len(ids) == 1
    return ids[0]


def test_a_missing_space_is_hinted_at_once(
    smollm2: garcon.RemoteModel, capsys: pytest.CaptureFixture[str]
) -> None:
    text = smollm2.encode(CLEAN)
    ids = one_token_each(smollm2, ("Mary", "John"), after=text)
    assert ids == [id_of(smollm2, "Mary"), id_of(smollm2, "John")]
    said = capsys.readouterr().err
    assert "'Mary', 'John': without a space" in said and "' Mary', ' John'" in said
    one_token_each(smollm2, ("Mary", "John"), after=text)
    assert capsys.readouterr().err == ""  # once is enough
    spaced = one_token_each(smollm2, (" Mary", " John"), after=text)
    assert set(spaced).isdisjoint(ids) and capsys.readouterr().err == ""
    # After a text that ends with a space, a word begins without one.
    one_token_each(smollm2, ("Tom",), after=smollm2.encode(CLEAN + " "))
    assert one_token_each(smollm2, (7, "."), after=text)[0] == 7
    assert capsys.readouterr().err == ""


def test_an_answer_of_several_tokens_is_told_with_its_tokens(smollm2: garcon.RemoteModel) -> None:
    text = smollm2.encode(CLEAN)
    word = next(
        word
        for word in ("Rebecca", "Patricia", "Deborah", "Kitchen", "tiger", "piano")
        if len(smollm2.encode(word, special=False).ids[0]) > 1
        and len(smollm2.encode(f" {word}", special=False).ids[0]) == 1
    )
    with pytest.raises(BadRequest, match=rf"'{word}' is \d tokens: '.*' {word}', with its space"):
        one_token_each(smollm2, (word,), after=text)
    with pytest.raises(BadRequest, match=r"' Honorificabilitudinitatibus' is \d+ tokens: ' Hon"):
        smollm2.patching(CLEAN, CORRUPTED, (" Honorificabilitudinitatibus", " Mary"))
    with pytest.raises(BadRequest, match="is 0 tokens: none"):
        one_token_each(smollm2, ("",), after=text)


def test_pictures_follow_an_answer(
    smollm2: garcon.RemoteModel, capsys: pytest.CaptureFixture[str]
) -> None:
    lens = smollm2.lens(CLEAN, answer="Mary", statistic="answer probability").wait(120)
    assert "' Mary'" in capsys.readouterr().err
    chances = smollm2.forward(CLEAN, probes=[], logits=lambda x: x[0].float().softmax(-1))
    of_answer = chances[:, id_of(smollm2, "Mary")]
    assert lens.values.axes == ("layer", "position") and lens.values.name == "answer probability"
    assert lens.values[-1] == pytest.approx(of_answer.numpy(), abs=1e-4)
    assert lens.values.labels["position"][1] == "·Mary"
    Sweep.of(smollm2, CLEAN, CORRUPTED, (" Mary", "John"))
    assert "' John'" in capsys.readouterr().err
