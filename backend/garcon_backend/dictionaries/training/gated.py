"""The loss of gated dictionaries, whose latents are switched on by one number and are as strong as another says.

The gate reads ``π = z W + b_gate``, and a latent is ``[π > 0]·relu(e^r·(z W) + b_mag)`` (Rajamanoharan et al. 2024, *Improving dictionary
learning with gated sparse autoencoders*). The penalty on sums is on relu(π), so it does not shrink what is written. A step has no slope:
what teaches the gate which latents are needed is a second reconstruction, of relu(π) by the decoder and bias as they are, no gradient to these.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from garcon_backend.dictionaries.training.choosing import tiles
from garcon_backend.dictionaries.training.gradients import LossGradient
from garcon_backend.dictionaries.training.weights import TrainedWeights
from garcon_backend.distributed.collectives import Ranks


def of_gated(
    weights: TrainedWeights, z: Tensor, target: Tensor, ranks: Ranks, penalty: float
) -> LossGradient:
    """``|target - f W_dec - b_dec|² + penalty · Σ relu(π) + |target - relu(π) W_dec - b_dec|²``, a tile of tokens after the other.

    The last term has no gradient to W_dec and b_dec, but for what comes of b_dec's being subtracted from what is read.

    Args:
        weights: of this rank.
        z: what the encoder reads, [tokens, D].
        target: [tokens, O].
        penalty: of the sum of what the gates let through.
    """
    assert weights.gate_bias is not None and weights.gate_scale is not None
    gradient, n = TrainedWeights.zeros_like(weights), len(z)
    assert gradient.gate_bias is not None and gradient.gate_scale is not None
    errors, other = torch.empty_like(target), torch.empty_like(target)
    passed, total = torch.zeros_like(weights.gate_bias), z.new_zeros(())
    times = weights.gate_scale.exp()
    for part in tiles(n, weights.latents):
        read = linear(z[part], weights.encoder)
        gate, magnitude = read + weights.gate_bias, read * times + weights.encoder_bias
        on = (gate > 0) & (magnitude > 0)
        latents, through = magnitude * on, gate.relu()
        both = ranks.sum(torch.stack([latents @ weights.decoder, through @ weights.decoder]))
        errors[part], other[part] = target[part] - weights.output_bias - both
        by_output, by_other = errors[part] * (-2 / n), other[part] * (-2 / n)
        by_latent = (by_output @ weights.decoder.T) * on
        by_gate = (by_other @ weights.decoder.T + penalty / n) * (gate > 0)
        gradient.decoder += latents.T @ by_output
        gradient.output_bias += by_output.sum(0)
        gradient.encoder_bias += by_latent.sum(0)
        gradient.gate_bias += by_gate.sum(0)
        gradient.gate_scale += (by_latent * read).sum(0) * times
        gradient.encoder += (by_latent * times + by_gate).T @ z[part]
        passed += on.sum(0)
        total += through.sum()
    loss = (errors.square().sum(-1) + other.square().sum(-1)).mean()
    loss = loss + penalty * ranks.sum(total) / n
    return LossGradient(loss, errors, gradient, passed)


def as_thresholds(weights: TrainedWeights) -> tuple[TrainedWeights, Tensor]:
    """The same as a dictionary with thresholds at least 0, which reads what the magnitudes are made of."""
    assert weights.gate_bias is not None and weights.gate_scale is not None
    times = weights.gate_scale.exp()
    threshold = weights.encoder_bias - times * weights.gate_bias
    made = TrainedWeights(
        weights.encoder * times[:, None],
        weights.encoder_bias,
        weights.decoder,
        weights.output_bias,
    )
    return made, threshold.clamp(min=0)
