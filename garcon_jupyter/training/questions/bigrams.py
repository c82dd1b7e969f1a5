"""What embedding and unembedding say of one token after another, and how a training shifts it.

A model's *direct path* leaves out all layers: of token a, embedding row E[a], the unembedding makes logits

    bigrams[a, b] = Σ over d of E[a, d] · U[b, d]

for what follows, a table of bigrams (Elhage et al. `2021 <https://transformer-circuits.pub/2021/framework/>`_, zero-layer transformers). From one
checkpoint to the next it shifts by ΔE·Uᵀ + E′·ΔUᵀ, with U before and E′ after: by both updates, and by the weights that they are made to, so that
updates alone do not tell it (appendix IV of the post that :mod:`garcon_jupyter.training` follows). A norm before the
unembedding, scales and biases are left out: they are of a whole row or column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.errors import BadRequest, UnknownParameter
from garcon_jupyter.training.questions.checkpoints import Weights, at_each

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor
    from torch.nn import Module

TILE = 1 << 22
"""Bigrams that are looked at at once: the whole table of 28,000 words has 3 GB."""


@dataclass(frozen=True)
class BigramShift:
    """One bigram, from one checkpoint to the next.

    Attributes:
        label: of the later checkpoint.
        first, second: ids of the tokens.
        shift: by how much the logit of the second after the first changed.
        logit: what it is at the later checkpoint.
    """

    label: Any
    first: int
    second: int
    shift: float
    logit: float


@dataclass(frozen=True, eq=False, repr=False)
class BigramShifts:
    """The largest shifts of each checkpoint from the one before, by size.

    Attributes:
        labels: of the checkpoints but for the first.
        shifts: of all of these.
        sizes: of each, the root mean square over all bigrams: what a shift is large against.
    """

    labels: list[Any]
    shifts: list[BigramShift]
    sizes: list[float]

    def of(self, label: Any) -> list[BigramShift]:
        """Those of a checkpoint, the largest first.

        Raises:
            BadRequest: there is none of that label.
        """
        if label not in self.labels:
            raise BadRequest(f"There is no shift to {label!r}.", f"There are {self.labels[:8]}.")
        return [shift for shift in self.shifts if shift.label == label]

    def to_frame(self, texts: Mapping[int, str] | None = None) -> pd.DataFrame:
        """A row for each shift; tokens by their texts where these are given."""
        import pandas as pd

        words = texts or {}
        return pd.DataFrame(
            {
                "checkpoint": [s.label for s in self.shifts],
                "first": [words.get(s.first, s.first) for s in self.shifts],
                "second": [words.get(s.second, s.second) for s in self.shifts],
                "shift": [s.shift for s in self.shifts],
                "logit": [s.logit for s in self.shifts],
            }
        )

    def __repr__(self) -> str:
        return f"<bigram shifts of {len(self.labels):,} checkpoints: {len(self.shifts):,}>"


def bigram_shifts(
    model: Module,
    checkpoints: Mapping[Any, Weights],
    k: int = 20,
    *,
    embedding: str | None = None,
    unembedding: str | None = None,
) -> BigramShifts:
    """The bigrams whose logits by the direct path changed the most from each checkpoint to the next.

    Takes 2 · V² · D products for each pair of checkpoints, tile by tile: ten seconds for 28,000 words of 200 dimensions on a core.

    Args:
        model: with the names and shapes of the checkpoints; its own weights again afterwards.
        checkpoints: weights by label, in their order; the steps of a training, or fewer.
        k: how many of each.
        embedding: name of the parameter [V, D]; by default that of ``model.get_input_embeddings()``, or of the model's only table.
        unembedding: likewise, of the output embeddings, or of the only ``nn.Linear`` with as many outputs as the table has rows. A tied
            one is the same parameter.

    Raises:
        UnknownParameter: there is none of that name, or more than one that it could be.
        BadRequest: fewer than two checkpoints, `k` below 1, or tables of other shapes.
        BadData: weights are not those of the model.

    Examples:
        >>> import torch
        >>> from garcon_jupyter import training
        >>> model = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5, bias=False))
        >>> before = {name: each.clone() for name, each in model.state_dict().items()}
        >>> after = {**before, "1.weight": before["1.weight"] + torch.eye(5, 3)}
        >>> training.bigram_shifts(model, {"before": before, "after": after}, k=2)
        <bigram shifts of 1 checkpoints: 2>
    """
    if len(checkpoints) < 2 or k < 1:
        raise BadRequest(
            f"{len(checkpoints)} checkpoints and k={k} have no shifts.",
            "Give two checkpoints or more, and k ≥ 1.",
        )
    names = _tables(model, embedding, unembedding)
    with at_each(model, checkpoints) as series:
        tables = {label: [_copy(model, name) for name in names] for label in series}
    shapes = [tuple(table.shape) for table in next(iter(tables.values()))]
    if shapes[0] != shapes[1]:
        raise BadRequest(
            f"{names[0]} is {list(shapes[0])}, and {names[1]} {list(shapes[1])}: they make no table of bigrams.",
            "Give an embedding and an unembedding of the same words and dimensions.",
        )
    shifts, sizes = [], []
    for former, label in pairwise(tables):
        found, size = _largest(tables[former], tables[label], k)
        shifts += [BigramShift(label, *row) for row in found]
        sizes.append(size)
    return BigramShifts(list(tables)[1:], shifts, sizes)


def _copy(model: Module, name: str) -> Tensor:
    return model.get_parameter(name).detach().float().clone()


def _tables(model: Module, embedding: str | None, unembedding: str | None) -> tuple[str, str]:
    """Names of the two parameters."""
    from torch import nn

    names = dict(model.named_parameters(remove_duplicate=False))
    for name in (embedding, unembedding):
        if name is not None and name not in names:
            raise UnknownParameter(
                f"The model has no parameter {name!r}.", f"It has {', '.join(list(names)[:6])}, …."
            )
    of = {id(each): name for name, each in reversed(list(names.items()))}
    modules = list(model.modules())
    if embedding is None:
        embedding = of[id(_only(model, "get_input_embeddings", modules, nn.Embedding, None).weight)]
    if unembedding is None:
        words = len(names[embedding])
        found = _only(model, "get_output_embeddings", modules, nn.Linear, words)
        unembedding = of[id(found.weight)]
    return embedding, unembedding


def _only(
    model: Any, asked: str, modules: Sequence[Any], kind: type[Any], words: int | None
) -> Any:
    """The module that the model says, or the only one of a kind."""
    said = getattr(model, asked, lambda: None)()
    if said is not None:
        return said
    found = [m for m in modules if isinstance(m, kind)]
    if words is not None:
        found = [m for m in found if len(m.weight) == words]
    if len(found) != 1:
        raise UnknownParameter(
            f"The model has {len(found)} modules of {kind.__name__} that it could be.",
            "Give embedding= and unembedding=, by the names of the parameters.",
        )
    return found[0]


def _largest(
    before: Sequence[Tensor], after: Sequence[Tensor], k: int
) -> tuple[list[tuple[int, int, float, float]], float]:
    """(first, second, shift, logit) of the largest shifts, of equal ones the first, and their root mean square."""
    (e0, u0), (e1, u1) = before, after
    words = len(u0)
    step = max(1, TILE // words)
    best: list[tuple[float, int, float]] = []
    squares = 0.0
    for start in range(0, len(e0), step):
        rows = slice(start, start + step)
        shift = (e1[rows] - e0[rows]) @ u0.T + e1[rows] @ (u1 - u0).T
        squares += float(shift.double().square().sum())
        flat = shift.flatten()
        sizes = flat.abs()
        least = sizes.topk(min(k, len(sizes))).values[-1]
        for at in (sizes >= least).nonzero()[:, 0].tolist():
            best.append((-float(sizes[at]), start * words + at, float(flat[at])))
        best = sorted(best)[:k]
    places = [divmod(at, words) for _, at, _ in best]
    found = [
        (first, second, by, float(e1[first] @ u1[second]))
        for (first, second), (_, _, by) in zip(places, best, strict=True)
    ]
    return found, float(np.sqrt(squares / (len(e0) * words)))
