"""easy_garcon: one context, any point, without ceremony."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import RemoteModel
from garcon_jupyter.client.look import Look
from tests.oracle import Plain, close

TEXT = "The capital of France"
NEURONS = "layers.2.mlp.post_activation"


@pytest.fixture
def look(either: RemoteModel) -> Look:
    return garcon.easy_garcon(either, TEXT)


@pytest.fixture
def ids(plain: Plain) -> list[list[int]]:
    return [plain.tokenizer(TEXT)["input_ids"]]


def test_a_point_by_name_and_by_attribute(look: Look, plain: Plain, ids: Any) -> None:
    expected = plain.neurons(2, ids)
    assert close(look[NEURONS], expected)
    assert close(look.layers[2].mlp.post_activation, expected)
    assert close(look.layers[-2].mlp.post_activation, expected)
    assert close(look.logits, plain.logits(ids))
    assert look.embed.out.shape == (1, len(ids[0]), 48)


def test_a_pattern_gives_all_of_its_points_in_one_forward(
    look: Look, plain: Plain, ids: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[Any] = []
    forward = look._model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        passes.append(args)
        return forward(*args, **kwargs)

    monkeypatch.setattr(look._model, "forward", counted)
    values = look["layers.*.mlp.post_activation"]
    assert list(values) == [f"layers.{n}.mlp.post_activation" for n in range(4)]
    for layer, value in enumerate(values.values()):
        assert close(value, plain.neurons(layer, ids))
    look.fetch("layers.1-3.mlp.post_activation", NEURONS)
    assert len(passes) == 1


def test_looking_is_clean_and_leaves_nothing(look: Look, plain: Plain, ids: Any) -> None:
    def ablate(save_ctx: Any, tensor: Tensor) -> Tensor:
        save_ctx.ran = True
        return tensor * 0

    rmodel = look._model
    rmodel.attach(rmodel.probe_points["layers.0.resid_post"].probe(ablate))
    assert close(look[NEURONS], plain.neurons(2, ids))
    assert close(look.logits, plain.logits(ids))
    assert list(rmodel.recordings()) == []


def test_one_token_of_everything(look: Look, plain: Plain, ids: Any) -> None:
    last = look.token(-1)
    assert last.string == look.strings[-1]
    assert close(last[NEURONS], plain.neurons(2, ids)[0, -1])
    pattern = look["layers.1.attn.pattern"]
    assert pattern.shape == (1, 6, len(ids[0]), len(ids[0]))
    assert close(last["layers.1.attn.pattern"], pattern[0, :, -1])
    assert set(last["layers.*.resid_post"]) == {f"layers.{n}.resid_post" for n in range(4)}


def test_the_likeliest_next_tokens(look: Look, plain: Plain, ids: Any) -> None:
    best = plain.logits(ids)[0, -1].softmax(-1).topk(3)
    top = look.top(3)
    assert [text for text, _ in top] == [plain.tokenizer.decode([t]) for t in best.indices]
    assert close(torch.tensor([p for _, p in top]), best.values)


def test_two_prompts_are_compared_point_by_point(look: Look, plain: Plain, ids: Any) -> None:
    other = [[*ids[0][:-1], 77]]
    comparison = look.compare(torch.tensor(other))
    difference = plain.neurons(2, other) - plain.neurons(2, ids)
    assert close(comparison[NEURONS], difference, 1e-4)
    distance = comparison.distance("layers.*.mlp.post_activation")[NEURONS]
    assert close(distance, difference[0].norm(dim=1), 1e-4)
    assert distance[:-1].max() == 0 and distance[-1] > 0  # causal: only the last token differs
    with pytest.raises(ValueError, match="equally many tokens"):
        look.compare("Hi")[NEURONS]


def test_names_complete_and_wrong_ones_say_so(look: Look) -> None:
    assert {"embed", "layers", "final_norm"} <= set(dir(look))
    assert {"0", "1", "2", "3"} == set(dir(look.layers))
    assert "post_activation" in dir(look.layers[1].mlp)
    assert repr(look.layers[1].mlp.norm).startswith("<layers.1.mlp.norm: normalized, out, scale")
    with pytest.raises(AttributeError, match=r"Did you mean layers\.1\.mlp\.post_activation"):
        look.layers[1].mlp.post_activations  # noqa: B018
    with pytest.raises(IndexError, match="layers 0 to 3"):
        look.layers[7].mlp.out  # noqa: B018


def test_a_path_launches_and_connects(rmodel: RemoteModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from garcon_jupyter import api

    asked: list[str] = []

    def launched(path: str) -> RemoteModel:
        asked.append(path)
        return rmodel

    monkeypatch.setattr(api, "launch_and_connect", launched)
    assert garcon.easy_garcon("some/path", TEXT)._model is rmodel
    assert asked == ["some/path"]
