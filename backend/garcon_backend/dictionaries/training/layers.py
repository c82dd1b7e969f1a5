"""Which numbers a latent of a cross-layer transcoder has: it reads its own layer, and writes that and all later ones.

Rows of all layers lie side by side, so encoder and decoder have columns of all layers. Those of others are 0, and stay so, as their
gradient is.
"""

from __future__ import annotations

import torch

from garcon_backend.dictionaries.training.weights import TrainedWeights


def only_own_layers(weights: TrainedWeights, latents: range, width: int, layers: int) -> None:
    """Set to 0 what is of other layers, in weights or in a gradient.

    Args:
        weights: of these latents, encoder [F, layers · D] and decoder [F, layers · O].
        latents: numbered through all layers, `width` of each.
    """
    device = weights.encoder.device
    own = torch.arange(latents.start, latents.stop, device=device)[:, None] // width
    every = torch.arange(layers, device=device)
    for tensor, there in ((weights.encoder, own == every), (weights.decoder, own <= every)):
        by_layer = tensor.unflatten(1, (layers, -1))
        by_layer.mul_(there[:, :, None])
