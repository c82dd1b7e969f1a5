"""The loss by which dead latents learn what the others leave.

A latent that never passes has no gradient, and stays as it is. So the strongest of the dead ones, though they do not pass, are made to
reconstruct what the reconstruction lacks (Gao et al. 2024, section 2.4): half as many as there are outputs, and with a weight that falls as
fewer are dead.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from garcon_backend.dictionaries.training.choosing import tiles, weakest
from garcon_backend.dictionaries.training.weights import TrainedWeights
from garcon_backend.distributed.collectives import Ranks


def add_auxiliary(
    gradient: TrainedWeights,
    weights: TrainedWeights,
    z: Tensor,
    error: Tensor,
    dead: Tensor,
    count: int,
    weight: float,
    ranks: Ranks,
) -> Tensor:
    """Add the gradient of the loss of dead latents to that of a batch, and return that loss.

    ``weight · min(1, dead/k) · mean |error - Σ_{k largest dead} relu(pre)·decoder|²``, where the error is taken as it is.

    Args:
        gradient: of the batch, to which it is added.
        z: what the encoder reads, [tokens, D].
        error: what the reconstruction lacks, [tokens, O].
        dead: numbers of this rank's dead latents.
        count: dead latents of all ranks.
        weight: of the loss.
    """
    loss = torch.zeros((), dtype=z.dtype, device=z.device)
    most = max(1, error.shape[1] // 2)
    k, weight = min(most, count), weight * min(1.0, count / most)
    gated = weights.gate_bias is not None  # a latent is dead by its gate
    biases = weights.encoder_bias if weights.gate_bias is None else weights.gate_bias
    encoder, bias, decoder = weights.encoder[dead], biases[dead], weights.decoder[dead]
    by_encoder, by_bias, by_decoder = map(torch.zeros_like, (encoder, bias, decoder))
    for part in tiles(len(z), len(dead)):
        pre = linear(z[part], encoder, bias).relu()
        found, places = pre.topk(min(k, len(dead)), dim=-1, sorted=False)
        if ranks.size > 1:
            found = found * (found >= weakest(found, k, ranks))
        latents = torch.zeros_like(pre).scatter_(-1, places, found)
        lacks = ranks.sum(latents @ decoder) - error[part]
        by_output = lacks * (2 * weight / len(z))
        by_latent = (by_output @ decoder.T) * (latents > 0)
        by_decoder += latents.T @ by_output
        by_encoder += by_latent.T @ z[part]
        by_bias += by_latent.sum(0)
        loss += lacks.square().sum() * weight / len(z)
    gradient.encoder.index_add_(0, dead, by_encoder)
    moved = gradient.gate_bias if gated else gradient.encoder_bias
    assert moved is not None
    moved.index_add_(0, dead, by_bias)
    gradient.decoder.index_add_(0, dead, by_decoder)
    return loss
