"""The gradient of each datum by a backward pass of its own: nothing of the code under test is used."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from tests.checkpoints import redraw
from tests.configurations import FAMILIES
from tests.configurations.parts import COMMON, VOCABULARY

ROWS, PLACES = 4, 9


def tiny(family: str, dtype: torch.dtype = torch.float64, **changed: Any) -> nn.Module:
    """A small random model with every parameter redrawn, in training mode, without a checkpoint."""
    return copy.deepcopy(_made(family, dtype, tuple(changed.items())))


@functools.cache
def _made(family: str, dtype: torch.dtype, options: tuple[tuple[str, Any], ...]) -> nn.Module:
    changed = dict(options)
    sizes = {"num_hidden_layers": 2} if "num_hidden_layers" in FAMILIES[family] else {}
    config = AutoConfig.for_model(family, **{**COMMON, **FAMILIES[family], **sizes, **changed})
    experts = {"experts_implementation": "eager"} if "expert" in str(FAMILIES[family]) else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation="eager", **experts
        )
    redraw(model)
    return model.to(dtype).train()


def tokens(rows: int = ROWS, places: int = PLACES, seed: int = 0) -> Tensor:
    """Random tokens [rows, places]; some occur twice in a row."""
    made = torch.Generator().manual_seed(seed)
    found = torch.randint(3, VOCABULARY, (rows, places), generator=made)
    found[:, 4] = found[:, 1]
    return found


def losses(model: nn.Module, ids: Tensor, weights: Tensor | None = None, **options: Any) -> Tensor:
    """Each datum's share of the mean cross entropy of the batch, [rows]; they sum to it.

    Args:
        weights: [rows, places], 1 where a position's token is to be predicted, 0 where not.
    """
    logits = model(input_ids=ids, use_cache=False, **options).logits
    each = functional.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="none"
    ).view(ids.shape[0], -1)
    counted = torch.ones_like(each) if weights is None else weights[:, 1:].to(each)
    return (each * counted).sum(1) / counted.sum()


def truth(model: nn.Module, ids: Tensor, **options: Any) -> dict[str, Tensor]:
    """[rows, *shape] of each parameter: one backward for each datum."""
    found: dict[str, list[Tensor]] = {}
    for row in range(len(ids)):
        model.zero_grad()
        losses(model, ids, **options)[row].backward()
        for name, each in model.named_parameters():
            gradient = torch.zeros_like(each) if each.grad is None else each.grad.clone()
            found.setdefault(name, []).append(gradient)
    model.zero_grad()
    return {name: torch.stack(rows) for name, rows in found.items()}


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest number that is expected."""
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-300))
