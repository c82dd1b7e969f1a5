"""The loop: SGD with clipping and a rate that falls, as in the post, and every step recorded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from garcon_jupyter import training

RATE, CLIP, FALL = 5.0, 0.5, 0.95
"""Learning rate, the norm to which gradients are clipped, and by what the rate is multiplied after an epoch: the post's."""

MLPS = "layers.*.linear?.weight"


@dataclass
class Course:
    """How a training went.

    Attributes:
        losses: of each step.
        seconds: of CPU time.
    """

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def mean(self, part: slice) -> float:
        """The mean loss of some steps."""
        return sum(self.losses[part]) / len(self.losses[part])


def loss_of(model: nn.Module, words: Tensor) -> Tensor:
    """Mean cross entropy of the next words, for [rows, places + 1]."""
    return functional.cross_entropy(model(words[:, :-1]).flatten(0, 1), words[:, 1:].flatten())


def train(
    model: nn.Module,
    data: Tensor,
    path: Path | None = None,
    *,
    epochs: int = 1,
    rate: float = RATE,
    most: int | None = None,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Course:
    """Train a model on data [steps, rows, places + 1], and record it.

    Args:
        path: of the record; None to train without.
        epochs: how often all data are read.
        rate: the learning rate of the first epoch.
        most: steps at most.
        say: is told how it goes.
        options: of :func:`garcon_jupyter.training.record`.
    """
    kept = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(kept, lr=rate)
    falling = torch.optim.lr_scheduler.StepLR(optimizer, 1, FALL)
    course, start = Course(), time.process_time()
    rows = data.shape[1]
    numbers = range(len(data) * epochs)[:most]
    record = None if path is None else training.record(model, path, **options)
    with record or torch.enable_grad():
        for number in numbers:
            at = number % len(data)
            loss = loss_of(model.train(), data[at])
            loss.backward()
            if record is not None:
                record.data(range(at * rows, (at + 1) * rows), loss.detach())
            nn.utils.clip_grad_norm_(kept, CLIP)
            optimizer.step()
            optimizer.zero_grad()
            course.losses.append(float(loss.detach()))
            if at == len(data) - 1:
                falling.step()
            if number % 200 == 199:
                lately = course.mean(slice(-200, None))
                say(f"step {number + 1} of {len(numbers)}: loss {lately:.3f}")
    course.seconds = time.process_time() - start
    return course


def perplexity(model: nn.Module, batches: Iterable[Tensor]) -> float:
    """Of the next word, in evaluation mode."""
    with torch.no_grad():
        losses = [float(loss_of(model.eval(), each)) for each in batches]
    return math.exp(sum(losses) / len(losses))
