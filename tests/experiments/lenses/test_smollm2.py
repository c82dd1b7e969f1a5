"""Lenses of a real model: what is fitted to a few sentences is nearer to the prediction of others than the logit lens."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import experiments
from garcon_jupyter.experiments.lenses.lens import Lens

pytestmark = pytest.mark.lasting

FITTED = [
    "The old man walked slowly down to the harbour to look at the boats.",
    "Water boils at a lower temperature in the mountains than at the sea.",
    "My sister bought three books about the history of the Roman Empire.",
]
HELD_OUT = [
    "The capital of France is Paris, and the river there is called the Seine.",
    "She opened the wooden box and found a letter from her grandfather.",
    "In winter the lake freezes, and children skate on it until the evening.",
    "The new engine needs less fuel because it burns at a higher temperature.",
]


def divergence(rmodel: garcon.RemoteModel, lens: Lens | None, layers: list[int]) -> Tensor:
    """The mean over what is held out, but for the first token, by layer."""
    found = [experiments.read_lens(rmodel, text, lens) for text in HELD_OUT]
    means: list[Tensor] = [one.at(statistic="KL to the last")[layers, 1:].mean(1) for one in found]
    return sum(means[1:], means[0]) / len(means)


def test_a_jacobian_lens_is_nearer_than_the_logit_lens(smollm2: garcon.RemoteModel) -> None:
    lens = experiments.fit_jacobian_lens(smollm2, FITTED[:2], 20, skip=1, tokens=96)
    logit, jacobian = (divergence(smollm2, one, [20]) for one in (None, lens))
    assert bool((jacobian < logit).all())


def test_a_tuned_lens_is_nearer_than_the_logit_lens(smollm2: garcon.RemoteModel) -> None:
    layers = [15, 20, 25]
    options: dict[str, Any] = {"steps": 12, "tokens_per_step": 32, "length": 16, "batch_tokens": 64}
    lens = experiments.train_tuned_lens(smollm2, FITTED, layers, **options)
    logit, tuned = (divergence(smollm2, one, layers) for one in (None, lens))
    assert bool((tuned < 0.6 * logit).all()), (tuned, logit)
