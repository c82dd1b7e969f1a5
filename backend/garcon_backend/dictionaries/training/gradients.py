"""Losses and their gradients, written out: no graph is kept, and nothing of size tokens × latents beyond a tile.

The loss of a token is the squared error of its reconstruction, summed over the output's dimensions; that of a batch is the mean over its
tokens. Rows of the decoder have length 1, so that a penalty on latents cannot be had by longer rows.

What competes (top-k) is computed over the latents that pass. What does not (jumprelu, standard) is dense, a tile of tokens at a time: early
in a training half of its latents pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from garcon_backend.dictionaries.training.choosing import tiles
from garcon_backend.dictionaries.training.chosen import ChosenLatents
from garcon_backend.dictionaries.training.weights import TrainedWeights
from garcon_backend.distributed.collectives import Ranks

BANDWIDTH = 0.1
"""How near to its threshold a pre-activation has to be to move it, in units of pre-activations."""


@dataclass
class LossGradient:
    """What a batch came to.

    Attributes:
        loss: of a token, penalties included.
        error: of the reconstruction, target less reconstruction, [tokens, O].
        gradient: of the loss; that of the output's bias is still without what comes by way of the encoder (:func:`through_encoder`).
        passed: how many tokens each latent of this rank passed for, [F].
    """

    loss: Tensor
    error: Tensor
    gradient: TrainedWeights
    passed: Tensor


def of_chosen(
    weights: TrainedWeights,
    z: Tensor,
    target: Tensor,
    chosen: ChosenLatents,
    ranks: Ranks,
    ends: Sequence[int] = (),
) -> LossGradient:
    """Of latents that were chosen: ``mean_m |target - Σ_{f < ends[m]} value·decoder[f] - bias|²``.

    Args:
        weights: of this rank.
        z: what the encoder reads, [tokens, D].
        target: [tokens, O].
        chosen: the latents that pass, with the values that the encoder gave them.
        ends: where each part of a matryoshka dictionary ends among this rank's latents; () for one part.
    """
    parts = _cut(chosen, ends)
    written = ranks.sum(torch.stack([part.decoded(weights.decoder) for part in parts]))
    errors = written.cumsum(0) + (weights.output_bias - target)
    by_output = errors * (2 / (len(parts) * len(z)))
    gradient = TrainedWeights.zeros_like(weights)
    gradient.output_bias = by_output.sum((0, 1))
    # A latent is in the reconstruction of its own part, and of all larger ones.
    by_part = by_output.flip(0).cumsum(0).flip(0)
    for part, by_row in zip(parts, by_part, strict=True):
        by_value = part.products(by_row, weights.decoder)
        gradient.decoder += part.summed(part.values, by_row)
        gradient.encoder += part.summed(by_value, z)
        gradient.encoder_bias += part.counted(by_value)
    loss = errors.square().sum(-1).mean()
    passed = chosen.counted(torch.ones_like(chosen.values))
    return LossGradient(loss, -errors[-1], gradient, passed)


def _cut(chosen: ChosenLatents, ends: Sequence[int]) -> list[ChosenLatents]:
    if len(ends) < 2:
        return [chosen]
    part = torch.bucketize(
        chosen.latents, torch.tensor(ends, device=chosen.latents.device), right=True
    )
    return [
        ChosenLatents(
            chosen.rows[part == number],
            chosen.latents[part == number],
            chosen.values[part == number],
            chosen.n_rows,
            chosen.n_latents,
        )
        for number in range(len(ends))
    ]


def of_all(
    weights: TrainedWeights, z: Tensor, target: Tensor, ranks: Ranks, penalty: float, k: int
) -> LossGradient:
    """Of latents that do not compete, a tile of tokens after the other.

    Without thresholds (standard): ``|error|² + penalty · Σ latents``. With them (jumprelu): ``|error|² + penalty · (L0/k - 1)²``, where
    L0 is the mean over the batch. A step has no slope, so thresholds are moved by the straight-through estimate of Rajamanoharan et al.
    (2024): what is within half of :data:`BANDWIDTH` of its threshold counts as if it were on the slope.

    Args:
        k: the L0 that is wanted of jumprelu.
    """
    n, sums = len(z), _DenseSums(weights, target, ranks, penalty)
    for part in tiles(n, weights.latents):
        sums.add(part, z[part])
    loss, found = sums.errors.square().sum(-1).mean(), sums.gradient
    if weights.threshold is None:
        loss += penalty * ranks.sum(sums.total) / n
    else:
        off = ranks.sum(sums.passed.sum()) / n / k - 1
        loss += penalty * off**2
        found.threshold = sums.moving - penalty * 2 * off / k * sums.near / (BANDWIDTH * n)
    return LossGradient(loss, sums.errors, found, sums.passed)


class _DenseSums:
    """Sums over the tiles of a batch.

    Attributes:
        gradient: without that of thresholds.
        errors: target less reconstruction, [tokens, O].
        passed: tokens that each latent passed for, [F].
        near: those for which it was near its threshold, [F].
        moving: the gradient of thresholds by way of the reconstruction, [F].
        total: of all latents.
    """

    def __init__(
        self, weights: TrainedWeights, target: Tensor, ranks: Ranks, penalty: float
    ) -> None:
        self._weights, self._target = weights, target
        self._ranks, self._penalty = ranks, penalty
        self.gradient = TrainedWeights.zeros_like(weights)
        self.errors = torch.empty_like(target)
        self.passed, self.near, self.moving = (
            torch.zeros_like(weights.encoder_bias) for _ in range(3)
        )
        self.total = torch.zeros((), dtype=target.dtype, device=target.device)

    def add(self, part: slice, z: Tensor) -> None:
        """Take in a tile of tokens."""
        weights, gradient, n = self._weights, self.gradient, len(self._target)
        pre = linear(z, weights.encoder, weights.encoder_bias)
        on = pre > (0 if weights.threshold is None else weights.threshold)
        latents = pre * on
        written = self._ranks.sum(latents @ weights.decoder) + weights.output_bias
        self.errors[part] = self._target[part] - written
        by_output = self.errors[part] * (-2 / n)
        by_latent = by_output @ weights.decoder.T
        if weights.threshold is None:
            by_latent += self._penalty / n
            self.total += latents.sum()
        else:
            near = (pre - weights.threshold).abs() < BANDWIDTH / 2
            self.moving -= (by_latent * near).sum(0) * weights.threshold / BANDWIDTH
            self.near += near.sum(0)
        by_latent *= on
        gradient.decoder += latents.T @ by_output
        gradient.encoder += by_latent.T @ z
        gradient.encoder_bias += by_latent.sum(0)
        gradient.output_bias += by_output.sum(0)
        self.passed += on.sum(0)


def through_encoder(gradient: TrainedWeights, weights: TrainedWeights, ranks: Ranks) -> None:
    """Add to the gradient of the output's bias what comes of its being subtracted from what is read."""
    by_read = gradient.encoder_bias
    if weights.gate_scale is not None and gradient.gate_bias is not None:
        by_read = by_read * weights.gate_scale.exp() + gradient.gate_bias
    gradient.output_bias -= ranks.sum(by_read @ weights.encoder)
