"""Flips against weights that are really set to zero, one position at a time."""

from __future__ import annotations

import copy

import pytest
import torch

from garcon_jupyter import training
from garcon_jupyter.errors import BadRequest
from tests.training import planted
from tests.training.by_backwards import tiny, tokens

IDS = planted.corpus(8)


def noisy() -> planted.Model:
    torch.manual_seed(2)
    model = planted.Model().eval()
    model.head.weight.data *= 4
    return model


@pytest.mark.parametrize(
    ("unit", "axis"), [("linear2", 1), ("linear1", 0), ("linear1", 1), ("out", 1)]
)
def test_zero_is_as_if_the_weights_were(unit: str, axis: int) -> None:
    model, other = noisy(), noisy()
    name, neuron = f"layers.1.{unit}.weight", 5
    module = other.get_submodule(f"layers.1.{unit}")
    with torch.no_grad():
        if axis == 1:
            module.weight[:, neuron] = 0
        else:
            module.weight[neuron], module.bias[neuron] = 0, 0
        before, after = model(IDS).argmax(-1), other(IDS).argmax(-1)
    found = training.flips(model.train(), IDS, name, neuron, axis=axis)
    assert found.before.equal(before) and found.after.equal(after) and model.training
    changed = [
        (int(a), int(b)) for a, b in zip(before.flatten(), after.flatten(), strict=True) if a != b
    ]
    assert found.positions == len(changed)
    for each in found.tokens:
        pairs = zip(before.flatten().tolist(), after.flatten().tolist(), strict=True)
        either = [(a, b) for a, b in pairs if each.token in (a, b)]
        assert each.flips == sum(a != b for a, b in either) and each.predicted == len(either)
        assert each.share == each.flips / each.predicted
        assert each.appears == sum(b == each.token for a, b in changed)
    assert {each.token for each in found.tokens} == {t for pair in changed for t in pair}


def test_a_neuron_that_does_something_changes_predictions_and_losses() -> None:
    model = noisy()
    with torch.no_grad():
        model.layers[1].linear2.weight[:, 5] *= 30
    found = training.flips(model, IDS, "layers.1.linear2.weight", 5, axis=1)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.layers[1].linear2.weight[:, 5] = 0
        rise = [
            -m(IDS)[:, :-1].log_softmax(-1).gather(2, IDS[:, 1:, None])[..., 0]
            for m in (other, model)
        ]
    assert found.positions > 0 and len(found.to_frame()) == len(found.tokens) > 0
    token = int(IDS[0, 1])
    at = IDS[:, 1:] == token
    assert found.loss[token] == pytest.approx(float((rise[0] - rise[1])[at].mean()), abs=1e-5)


def test_the_mean_is_that_of_the_texts() -> None:
    model, name = noisy(), "layers.0.linear2.weight"
    read: list[torch.Tensor] = []
    module = model.layers[0].linear2
    hook = module.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0][..., 5]))
    with torch.no_grad():
        model(IDS)
        hook.remove()
        mean = read[0].mean()

        def held(_: object, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            copied = inputs[0].clone()
            copied[..., 5] = mean
            return (copied,)

        hook = module.register_forward_pre_hook(held)
        after = model(IDS).argmax(-1)
        hook.remove()
    assert training.flips(model, IDS, name, 5, axis=1, held="mean").after.equal(after)


def test_gpt2s_weights_are_stored_the_other_way_round() -> None:
    model, ids = tiny("gpt2", torch.float32), tokens()
    other = copy.deepcopy(model).eval()
    with torch.no_grad():
        other.transformer.h[0].mlp.c_proj.weight[9] = 0
        expected = other(ids).logits.argmax(-1)
    found = training.flips(model, ids, "transformer.h.0.mlp.c_proj.weight", 9, axis=0)
    assert found.after.equal(expected)


def test_what_is_no_neuron_is_refused() -> None:
    with pytest.raises(BadRequest, match="no neuron 40"):
        training.flips(noisy(), IDS, "layers.1.linear2.weight", 40, axis=1)
    with pytest.raises(BadRequest, match="held='off'"):
        training.flips(noisy(), IDS, "layers.1.linear2.weight", 4, axis=1, held="off")
