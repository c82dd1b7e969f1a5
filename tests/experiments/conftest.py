"""A text of the small models, and what plain transformers make of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from tests.oracle import Plain

TEXT = "Hello, world"


@pytest.fixture
def ids(rmodel: garcon.RemoteModel) -> Tensor:
    return rmodel.encode(TEXT).ids


@pytest.fixture
def log_probabilities(plain: Plain, ids: Tensor) -> Tensor:
    """Of the plain model, float64 [p, V]."""
    return plain.logits(ids)[0].double().log_softmax(-1)


@torch.no_grad()
def lens_oracle(plain: Plain, ids: Tensor) -> Tensor:
    """Log-probabilities of every layer's readout of a Llama, float64 [layer, p, V]."""
    norm, unembed = plain.module("model.norm"), plain.module("lm_head").weight.double()
    rows = []
    for layer in range(plain.model.config.num_hidden_layers):
        x = plain.output(f"model.layers.{layer}", ids)[0].double()
        x = x / (x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
        rows.append((x * norm.weight.double()) @ unembed.T)
    return torch.stack(rows).log_softmax(-1)
