"""Adam, its learning rate, and rows of length 1."""

from __future__ import annotations

import torch
from torch import Tensor

from garcon_backend.dictionaries.training.weights import TrainedWeights
from garcon_jupyter.wire.dictionary_training import TrainingSettings

_FALLING = 0.2
"""The last part of a training, in which the learning rate falls to 0, where its end is known."""


def learning_rate(settings: TrainingSettings, steps: int, tokens: int) -> float:
    """That of the step after so many: it rises over the first steps, and falls over the last part.

    Args:
        steps: done.
        tokens: trained on.
    """
    rate = settings.lr * min(1.0, (steps + 1) / max(1, settings.warm_up))
    if settings.tokens:
        left = 1 - tokens / settings.tokens
        rate *= max(0.0, min(1.0, left / _FALLING))
    return rate


class Optimizer:
    """Adam on a dictionary whose decoder's rows keep length 1."""

    def __init__(self, weights: TrainedWeights) -> None:
        self._weights = weights
        self._adam = torch.optim.Adam(
            list(weights.tensors().values()), lr=0.0, betas=(0.9, 0.999), fused=True
        )

    def step(self, gradient: TrainedWeights, rate: float) -> None:
        """Move the weights.

        What of the decoder's gradient lies along its rows would only lengthen them, and is left out before Adam scales it.
        """
        decoder = self._weights.decoder
        along = (gradient.decoder * decoder).sum(1, keepdim=True)
        gradient.decoder.addcmul_(along, decoder, value=-1)
        for name, value in self._weights.tensors().items():
            value.grad = gradient.tensors()[name]
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()
        for value in self._weights.tensors().values():
            value.grad = None
        self.normalize()

    def normalize(self) -> None:
        """Make the decoder's rows of length 1, and thresholds no less than 0."""
        decoder = self._weights.decoder
        decoder /= decoder.norm(dim=1, keepdim=True).clamp(min=1e-8)
        if self._weights.threshold is not None:
            self._weights.threshold.clamp_(min=0)

    def state(self) -> dict[str, Tensor]:
        """What Adam keeps of each number, by names such as ``encoder.exp_avg``."""
        return {
            f"{name}.{kept}": value
            for name, tensor in self._weights.tensors().items()
            for kept, value in self._adam.state[tensor].items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Be as it was."""
        for name, tensor in self._weights.tensors().items():
            kept = {
                key.removeprefix(f"{name}."): value.clone()
                for key, value in state.items()
                if key.startswith(f"{name}.")
            }
            self._adam.state[tensor].clear()
            self._adam.state[tensor].update(kept)
