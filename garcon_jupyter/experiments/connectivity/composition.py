"""Composition: how much each head reads of what each earlier head writes, from the weights alone.

composition(rmodel, "K").strongest(5)     # which heads' keys read which heads' output

By Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits". A head reads the stream three times. It *asks* and is
*asked* by its QK circuit, ``QK = W_Qᵀ·W_K`` [D, D], and what it moves goes through its OV circuit, ``OV = W_O·W_V`` [D, D]. An earlier
head writes by its own OV. So there are three compositions with it:

    K: ‖QK·OV‖ / (‖QK‖·‖OV‖)      Q: ‖QKᵀ·OV‖ / (‖QK‖·‖OV‖)      V: ‖OV₂·OV₁‖ / (‖OV₂‖·‖OV₁‖)

all by Frobenius norms. It is 1 only where both have one direction alone and it is the same; of two heads with the same d directions, all
alike strong, it is 1/√d.

**Chance.** Of two matrices that have nothing to do with each other the score is not 0. Turn the writer by a random rotation of the
D-dimensional stream: the square of the score is 1/D in the mean, exactly, whatever the singular values of the two (the mean over
rotations of a matrix is its trace / D times the identity). So chance is 1/√D, 0.0417 for D = 576. The variance of the square is

    2·(p − 1/D)·(q − 1/D) / ((D − 1)·(D + 2)),     p = tr((BᵀB)²), q = tr((AAᵀ)²), of reader B and writer A at unit norm,

since symmetric matrices without trace, of which there are (D − 1)·(D + 2)/2 dimensions, are turned into each other by rotations and no
part of them into itself (Schur's lemma). It says by how many standard deviations a score is above chance. Trained heads share a few
strong directions of the stream, so a typical pair is above it by a few; only the tail says something.

**How.** On the server, a block of layers at a time, each rank some of the readers. No D × D matrix is made. With ``G = W_V·W_Vᵀ`` [d, d] and R·Rᵀ = G, ``‖X·W_O·W_V‖ = ‖X·W_O·R‖``; on the reader's side,
``‖W_Qᵀ·P‖² = ⟨W_Q·W_Qᵀ, P·Pᵀ⟩``. What is left is ``P = W_K·(W_O·R)`` [d, d_v] of each pair, or of each key/value head, where these are shared.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from garcon_jupyter.connection import progress
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.connectivity.factored_matrix import root
from garcon_jupyter.experiments.connectivity.folding import width_read
from garcon_jupyter.experiments.connectivity.heads import (
    LayerHeads,
    heads_of,
    layers_of_heads,
    limits,
)
from garcon_jupyter.experiments.connectivity.weights import RankWeights, at_the_weights
from garcon_jupyter.experiments.result import ExperimentResult

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

Kind = Literal["Q", "K", "V"]

LAYERS_AT_ONCE = 6
"""Layers that write, and layers that read, in one request. What the writers write is kept meanwhile."""


def composition(rmodel: Client, kind: Kind = "K") -> ExperimentResult:
    """How much each head reads of what each earlier head writes, from the weights alone (Elhage et al. 2021).

    Args:
        kind: with which of the three ways a head reads: its keys, its queries, or its values.

    Returns:
        Values [writer layer, writer head, reader layer, reader head], NaN where the reader does not come later. ``more`` has
        ``chance``, the score of a writer that is turned at random (one number, 1/√D), and ``deviations``, like the values: by how many
        standard deviations of chance the square of each score lies above the square of chance. ``facts["limits"]`` says what weights
        do not tell. The norms that heads read through are folded in; biases and positions are left out.

    Raises:
        BadRequest: there is no such kind.
        PointUnavailable: the model has no heads that can be read from weights, or they are packed; says why.

    Examples:
        The previous-token head 16.0 is read by an induction head of the layer after it more than by all others there.

        >>> found = experiments.composition(rmodel, "K")
        >>> read = found.at(**{"writer layer": 16, "writer head": 0, "reader layer": 17})
        >>> read.argmax().item(), round(read.max().item(), 3), round(found.more["chance"].item(), 3)
        (3, 0.168, 0.042)
    """
    import torch

    if kind not in get_args(Kind):
        raise BadRequest(
            f"There is no composition {kind!r}.",
            "'Q', 'K' and 'V' are those with a head's queries, keys and values.",
        )
    layers, left_out = layers_of_heads(rmodel)
    width, heads = width_read(rmodel), rmodel.catalog.sizes["H"]
    values = torch.full((len(layers), heads, len(layers), heads), math.nan)
    deviations = values.clone()
    for block in _blocks(kind, layers):
        for scores, above in at_the_weights(rmodel, block):
            part = (slice(*block.writers), slice(None), slice(*block.readers))
            values[part] = torch.where(scores.isnan(), values[part], scores)
            deviations[part] = torch.where(above.isnan(), deviations[part], above)
    numbers = tuple(range(heads))
    return ExperimentResult(
        "composition",
        values,
        {
            "writer layer": tuple(layers),
            "writer head": numbers,
            "reader layer": tuple(layers),
            "reader head": numbers,
        },
        f"{kind}-composition of two heads; {1 / math.sqrt(width):.4f} is chance, 1 the most",
        {
            "kind": kind,
            "model": rmodel.facts["name"],
            "limits": [*left_out, *limits(rmodel.catalog, layers)],
        },
        {"chance": torch.tensor(1 / math.sqrt(width)), "deviations": deviations},
    )


@dataclass(frozen=True)
class ScoresOfBlock:
    """The scores of some layers that write with some that read, as a function of the weights.

    Attributes:
        kind: of composition.
        layers: those that have heads.
        writers, readers: from which on, and up to which, among these.
    """

    kind: Kind
    layers: tuple[int, ...]
    writers: tuple[int, int]
    readers: tuple[int, int]

    def __call__(self, weights: RankWeights) -> tuple[Tensor, Tensor]:
        """Scores and deviations [writer layer, writer head, reader layer, reader head] of the readers that are this rank's, and of
        later layers; NaN elsewhere."""
        import torch

        heads, width = weights.catalog.sizes["H"], width_read(weights)
        written = range(*self.writers)
        shape = (len(written), heads, self.readers[1] - self.readers[0], heads)
        values = torch.full(shape, math.nan)
        deviations = values.clone()
        kept = [Writers.of(heads_of(weights, self.layers[at])) for at in written]
        for place, to in enumerate(range(*self.readers)):
            if to <= written[0]:
                continue
            found = heads_of(weights, self.layers[to])
            if to % weights.world != weights.rank:
                continue
            reader = Readers.of(self.kind, found)
            for index, at in enumerate(written):
                if at < to:
                    scores, above = reader.scores(kept[index], width)
                    values[index, :, place] = scores.T.cpu()
                    deviations[index, :, place] = above.T.cpu()
        return values, deviations


def _blocks(kind: Kind, layers: Sequence[int]) -> Iterator[ScoresOfBlock]:
    """All pairs of layers in blocks, and a line that says how far they are."""
    step, last = LAYERS_AT_ONCE, len(layers)
    parts = [(first, min(first + step, last)) for first in range(0, last, step)]
    both = [(w, r) for w in parts for r in parts if w[0] < r[1] - 1]
    line, since = None, time.monotonic()
    for done, (writers, readers) in enumerate(both):
        yield ScoresOfBlock(kind, tuple(layers), writers, readers)
        if time.monotonic() - since > progress.MOMENT:
            line = line or progress.Line()
            line.show(f"{kind}-composition {progress.bar((done + 1) / len(both))}")
    if line:
        line.end(f"{kind}-composition in {progress.duration(time.monotonic() - since)}")


# -- one layer -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Writers:
    """What the heads of a layer write.

    Attributes:
        directions: float32 [D, H, d_v], ``W_O·R`` of each head at unit Frobenius norm.
        purity: float32 [H], tr((AAᵀ)²): 1 where a head writes one direction, 1/r where r alike.
    """

    directions: Tensor
    purity: Tensor

    @classmethod
    def of(cls, heads: LayerHeads) -> Writers:
        """Those of a layer."""
        values = heads.by_head(root(heads.values @ heads.values.mT))
        written = heads.outputs @ values
        written = written / written.flatten(1).norm(dim=1)[:, None, None]
        purity = (written.mT @ written).square().sum((1, 2))
        return cls(written.permute(1, 0, 2).contiguous(), purity)


@dataclass(frozen=True, eq=False)
class Readers:
    """What the heads of a layer read, one of the three ways.

    Attributes:
        near: float32 [G, d, D], what stands at the stream: keys or values of K heads, or queries of H.
        far: float32 [H, d, d], the Gram matrix of what stands behind it, such that ⟨far, near·nearᵀ⟩ is 1.
        purity: float32 [H], as of :class:`Writers`.
    """

    near: Tensor
    far: Tensor
    purity: Tensor

    @classmethod
    def of(cls, kind: Kind, heads: LayerHeads) -> Readers:
        """Those of a layer."""
        if kind == "K":
            near, far = heads.keys, heads.queries @ heads.queries.mT
        elif kind == "Q":
            near, far = heads.queries, heads.by_head(heads.keys @ heads.keys.mT)
        else:
            near, far = heads.values, heads.outputs.mT @ heads.outputs
        gram = (near @ near.mT).repeat_interleave(len(far) // len(near), 0)
        far = far / (far * gram).sum((1, 2))[:, None, None]
        both = far @ gram
        return cls(near, far, (both * both.mT).sum((1, 2)))

    def scores(self, writers: Writers, width: int) -> tuple[Tensor, Tensor]:
        """The score of each pair, and by how many standard deviations of chance it is above it, [reader head, writer head]."""
        groups, size, _ = self.near.shape
        width_of_stream, heads, _ = writers.directions.shape
        read = self.near.flatten(0, 1) @ writers.directions.view(width_of_stream, -1)
        read = read.view(groups, size, heads, -1).transpose(1, 2)
        squares = (read @ read.mT).flatten(2)  # [G, writer head, d·d]
        far = self.far.view(groups, -1, size * size)
        square = (far @ squares.mT).flatten(0, 1).clamp_min(0)
        spread = (self.purity - 1 / width).clamp_min(0)[:, None]
        spread = spread * (writers.purity - 1 / width).clamp_min(0)
        deviation = (2 * spread / ((width - 1) * (width + 2))).sqrt()
        return square.sqrt(), (square - 1 / width) / deviation
