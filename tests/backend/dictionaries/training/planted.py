"""A planted truth: rows that are sums of few of many known directions, and how many of these were found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from garcon_backend.dictionaries.training import Trainer
from garcon_jupyter.wire.dictionary_training import TrainingSettings

D, DIRECTIONS, ACTIVE = 48, 96, 3
BATCH = 256


def settings(kind: str = "topk", **changed: Any) -> TrainingSettings:
    """A training that finds planted directions in a second or two."""
    there: dict[str, Any] = {
        "width": DIRECTIONS,
        "reads": "layers.0.resid_post",
        "writes": "layers.0.resid_post",
        "k": ACTIVE,
        "lr": 0.01,
        "batch": BATCH,
        "warm_up": 20,
        "buffer_bytes": 4 * D * 4 * BATCH,
        "dead_after": 20 * BATCH,
    }
    return TrainingSettings(kind, **{**there, **changed})


def directions(seed: int = 1234) -> Tensor:
    """Random directions [96, 48], of length 1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(DIRECTIONS, D, generator=generator), dim=1)


def codes(rows: int, generator: torch.Generator) -> Tensor:
    """Three of all for each row, between 1 and 2."""
    places = torch.rand(rows, DIRECTIONS, generator=generator).topk(ACTIVE).indices
    strengths = 1 + torch.rand(rows, ACTIVE, generator=generator)
    return torch.zeros(rows, DIRECTIONS).scatter_(1, places, strengths)


def stream(steps: int, truth: Tensor, seed: int = 1, shuffled: bool = False) -> Iterator[Tensor]:
    """Rows in pieces of odd sizes.

    Args:
        shuffled: every dimension by itself, so that each has its values, and no direction is left.
    """
    generator = torch.Generator().manual_seed(seed)
    left = steps * BATCH
    while left > 0:
        n = min(left, 700)
        rows = codes(n, generator) @ truth
        if shuffled:
            rows = torch.stack([c[torch.randperm(n, generator=generator)] for c in rows.T], 1)
        left -= n
        yield rows


def trained(
    asked: TrainingSettings, rows: Iterator[Tensor], trainer: Trainer | None = None
) -> Trainer:
    """A trainer after these rows and what is left in its buffer."""
    trainer = trainer or Trainer(asked, D, D)
    for piece in rows:
        trainer.take(piece)
    while trainer.finish():
        pass
    return trainer


def found(trainer: Trainer, truth: Tensor) -> float:
    """The mean over planted directions of the largest cosine with one that was learnt."""
    assert trainer.weights is not None
    learnt = torch.nn.functional.normalize(trainer.weights.decoder, dim=1)
    return float((truth @ learnt.T).amax(1).mean())
