"""The numbers that are trained: those of the latents that one rank holds."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class TrainedWeights:
    """A dictionary in training, or the gradient of its loss.

    Attributes:
        encoder: [F, D], a row for each latent.
        encoder_bias: [F].
        decoder: [F, O], a row for each latent, of length 1.
        output_bias: [O], alike on all ranks.
        threshold: [F] of jumprelu; else None.
        gate_bias: [F] of gated, whose gate reads what the encoder gives without its bias, and this; else None.
        gate_scale: [F] of gated, the logarithm of what magnitudes are of what the gate reads; else None.
    """

    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    output_bias: Tensor
    threshold: Tensor | None = None
    gate_bias: Tensor | None = None
    gate_scale: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Those that are there, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def latents(self) -> int:
        """How many are held."""
        return len(self.decoder)

    @classmethod
    def zeros_like(cls, other: TrainedWeights) -> TrainedWeights:
        """As many zeros: a gradient before anything is added to it."""
        return cls(**{name: torch.zeros_like(value) for name, value in other.tensors().items()})


def drawn(
    width: int, latents: range, d_in: int, d_out: int, seed: int, tied: bool
) -> TrainedWeights:
    """Weights to begin with: random directions, which the encoder has as well, where it is of the same space.

    Each rank draws those of all latents and keeps its own, so that they are the same over any number of ranks.

    Args:
        width: latents of all ranks.
        latents: those of this one.
        tied: whether the encoder begins as the decoder.
    """
    generator = torch.Generator().manual_seed(seed)
    decoder = _directions(width, d_out, generator)[latents.start : latents.stop].clone()
    encoder = (
        decoder.clone()
        if tied
        else _directions(width, d_in, generator)[latents.start : latents.stop].clone()
    )
    return TrainedWeights(encoder, torch.zeros(len(latents)), decoder, torch.zeros(d_out))


def _directions(n: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(n, width, generator=generator), dim=1)
