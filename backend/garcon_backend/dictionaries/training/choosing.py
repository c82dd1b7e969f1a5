"""Which latents pass, of those of all ranks.

Pre-activations of all latents are held for a tile of tokens at a time. Where latents displace one another, each rank takes the
strongest of its own, and the values of these alone are exchanged: what passes anywhere is above the weakest that passes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import linear

from garcon_backend.dictionaries.training.chosen import ChosenLatents
from garcon_backend.dictionaries.training.weights import TrainedWeights
from garcon_backend.distributed.collectives import Ranks

TILE = 1 << 22
"""Numbers that a tile of tokens × latents may have: 16 MB of float32."""


def tiles(rows: int, latents: int) -> Iterator[slice]:
    """Slices of tokens, each of which fits into a tile."""
    height = max(1, TILE // max(1, latents))
    return (slice(first, min(first + height, rows)) for first in range(0, rows, height))


def largest(z: Tensor, weights: TrainedWeights, k: int, ranks: Ranks) -> ChosenLatents:
    """The k largest of each token [tokens, D], those of them that are above 0."""
    found = [
        linear(z[part], weights.encoder, weights.encoder_bias).topk(
            min(k, weights.latents), dim=-1, sorted=False
        )
        for part in tiles(len(z), weights.latents)
    ]
    values = torch.cat([values for values, _ in found]).relu()
    latents = torch.cat([latents for _, latents in found])
    passes = values > 0
    if ranks.size > 1:
        passes &= values >= weakest(values, k, ranks)
    rows = torch.arange(len(z), device=z.device)[:, None].expand(passes.shape)
    return ChosenLatents(rows[passes], latents[passes], values[passes], len(z), weights.latents)


def weakest(values: Tensor, k: int, ranks: Ranks) -> Tensor:
    """The k-th largest of all ranks' values [tokens, n], [tokens, 1]."""
    padded = torch.nn.functional.pad(values, (0, max(0, k - values.shape[-1])))
    every = ranks.all_gather(padded.contiguous(), padded.shape[-1] * ranks.size)
    return every.topk(k, dim=-1).values[..., -1:]


def largest_of_batch(z: Tensor, weights: TrainedWeights, k: int, ranks: Ranks) -> ChosenLatents:
    """The k · tokens largest of the whole batch, those of them that are above 0.

    What cannot be among them any longer is dropped after each tile, so that never more than a tile and twice what passes are held.
    """
    most = k * len(z)
    held: list[tuple[Tensor, Tensor, Tensor]] = []
    count, bound = 0, torch.zeros((), dtype=z.dtype, device=z.device)
    for part in tiles(len(z), weights.latents):
        pre = linear(z[part], weights.encoder, weights.encoder_bias)
        rows, latents = (pre > bound).nonzero(as_tuple=True)
        held.append((rows + part.start, latents, pre[rows, latents]))
        count += len(rows)
        if count > 2 * most:
            held = [_strongest(held, most)]
            count, bound = most, held[0][2].min()
    rows, latents, values = _strongest(held, most)
    if ranks.size > 1:
        every = torch.nn.functional.pad(values, (0, most - len(values)))[None]
        passes = values >= weakest(every, most, ranks)[0, 0]
        rows, latents, values = rows[passes], latents[passes], values[passes]
    return ChosenLatents(rows, latents, values, len(z), weights.latents)


def _strongest(
    held: list[tuple[Tensor, Tensor, Tensor]], most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Of several tiles' the strongest, by token."""
    rows, latents, values = (torch.cat(each) for each in zip(*held, strict=True))
    if len(values) <= most:
        return rows, latents, values
    kept = values.topk(most, sorted=False).indices.sort().values
    return rows[kept], latents[kept], values[kept]


def above(z: Tensor, weights: TrainedWeights, threshold: Tensor) -> ChosenLatents:
    """Those above a threshold that is at least 0, of all latents or of each."""
    found = []
    for part in tiles(len(z), weights.latents):
        pre = linear(z[part], weights.encoder, weights.encoder_bias)
        rows, latents = (pre > threshold).nonzero(as_tuple=True)
        found.append((rows + part.start, latents, pre[rows, latents]))
    rows, latents, values = (torch.cat(each) for each in zip(*found, strict=True))
    return ChosenLatents(rows, latents, values, len(z), weights.latents)
