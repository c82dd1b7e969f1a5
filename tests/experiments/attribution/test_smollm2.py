"""Attribution on a real model, beside the truth: every head's z patched by hand with plain transformers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import experiments
from garcon_jupyter.model_files import embedded
from tests.conftest import quiet
from tests.experiments.attribution.by_hand import LlamaByHand
from tests.oracle import Plain

pytestmark = pytest.mark.lasting

CLEAN = "When John and Mary went to the shops, John gave the bag to"
CORRUPTED = "When John and Mary went to the shops, Mary gave the bag to"
ANSWERS = (" Mary", " John")

LAYERS = (17, 20, 23)
"""Those whose heads matter most."""


@dataclass
class Truth:
    """Shares of the clean answer with each head patched, [layer, head], and with each of LAYERS patched whole."""

    heads: Tensor
    layers: Tensor


@pytest.fixture(scope="module")
def truth() -> Truth:
    plain = Plain(embedded.fetch("smollm2", progress=quiet))
    clean, corrupted = (
        torch.tensor([plain.tokenizer(text)["input_ids"]]) for text in (CLEAN, CORRUPTED)
    )
    first, second = (plain.tokenizer(answer)["input_ids"] for answer in ANSWERS)
    hand = LlamaByHand(plain.model, (first[0], second[0]))
    entering: list[tuple[tuple[Tensor, ...], dict[str, Tensor]]] = []
    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: entering.append((args, kwargs)), with_kwargs=True
        )
        for layer in hand.layers
    ]
    with torch.no_grad():
        low, z_corrupted, _ = hand.run(corrupted)
        for handle in handles:
            handle.remove()
        high, z_clean, _ = hand.run(clean)
        scale = float(high - low)
        heads = torch.stack(
            [
                (_suffix(hand, entering[n], n, z_clean[n], z_corrupted[n]) - low) / scale
                for n in range(len(hand.layers))
            ]
        )
        layers = [hand.patched(corrupted, {layer: z_clean[layer]}) - float(low) for layer in LAYERS]
    return Truth(heads, torch.tensor(layers) / scale)


def _suffix(
    hand: LlamaByHand, entering: object, start: int, clean: Tensor, corrupted: Tensor
) -> Tensor:
    """The metric with each head of one layer patched, [head]: the layers from there on, a row for each head."""
    (hidden, *_), kwargs = entering  # type: ignore[misc]
    rows = corrupted.repeat(hand.heads, 1, 1)
    given, theirs = hand.by_head(rows), hand.by_head(clean)
    for head in range(hand.heads):
        given[head, :, head] = theirs[0, :, head]
    with hand.at_z(lambda number, z: rows if number == start else z):
        hidden = hidden.detach().repeat(hand.heads, 1, 1)
        for layer in hand.layers[start:]:
            hidden = layer(hidden, **kwargs | {"past_key_values": None})
    return hand.metric(hand.model.lm_head(hand.model.model.norm(hidden)[:, -1:]))


def pearson(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1])


def test_attribution_is_near_the_truth(smollm2: garcon.RemoteModel, truth: Truth) -> None:
    """The order of what was measured for the reference: the mean is nearer than either end."""
    found = {
        method: experiments.attribute(
            smollm2, CLEAN, CORRUPTED, answers=ANSWERS, method=method
        ).values
        for method in ("corrupted", "clean", "mean", "integrated")
    }
    near = {method: pearson(values, truth.heads) for method, values in found.items()}
    assert near["corrupted"] >= 0.96 and near["integrated"] > near["corrupted"] > near["clean"]
    assert near["mean"] == max(near.values())
    assert (found["corrupted"] - found["clean"]).abs().max() > 0.01  # one is not the other
    exchanged = experiments.attribute(smollm2, CORRUPTED, CLEAN, answers=ANSWERS).values
    assert pearson(exchanged, truth.heads) == pytest.approx(near["clean"], abs=1e-4)


def test_integrated_at_a_layer_is_nearly_exact(smollm2: garcon.RemoteModel, truth: Truth) -> None:
    found = [
        experiments.attribute(
            smollm2,
            *(CLEAN, CORRUPTED, f"layers.{layer}.attn.z", ("head",)),
            answers=ANSWERS,
            method="layer",
        ).values
        for layer in LAYERS
    ]
    values = torch.stack(found)
    assert ((values.sum(1) - truth.layers) / truth.layers).abs().max() < 0.01
    assert pearson(values, truth.heads[list(LAYERS)]) >= 0.995


def test_a_check_tells_the_same_truth(smollm2: garcon.RemoteModel, truth: Truth) -> None:
    found = experiments.attribute(smollm2, CLEAN, CORRUPTED, answers=ANSWERS, check=12)
    exact = found.more["exact"]
    seen = ~exact.isnan()
    assert int(seen.sum()) == 12
    assert torch.allclose(exact[seen], truth.heads[seen], atol=1e-4)
    assert found.facts["check"]["pearson"] > 0.95
