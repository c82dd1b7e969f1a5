"""How much training on each datum changed what the model says of a query: dot products over checkpoints, and the truth that they are held against.

TracIn (Pruthi et al. `2020 <https://arxiv.org/abs/2002.08484>`_) follows the loss of a query q along a training: a step of SGD on datum z lowers it, to first order, by η·∇L(z)·∇L(q). Over checkpoints c with learning
rates η_c,

    influence(z, q) = Σ over c of η_c · ∇L(z; θ_c) · ∇L(q; θ_c).

It knows nothing of what the other data would have done without z, nor of momentum, Adam's second moments and the order of the data; it favours data with large gradients, unless they are
normed. What really happens without z is :func:`leave_out`: as many trainings as data, so for small models only. :func:`rank_correlation` says how far the two agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.training.gradients.reading import Reader
from garcon_jupyter.training.questions.checkpoints import Losses, Weights, at_each, token_losses

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor
    from torch.nn import Module

    from garcon_jupyter.training.gradients.per_datum import PerDatum

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, repr=False)
class InfluenceTable:
    """Influences of data on queries; positive where training on the datum lowers the query's loss.

    Attributes:
        queries: ids.
        data: ids.
        values: float64 [query, datum].
    """

    queries: list[int]
    data: list[int]
    values: Array

    def of(self, query: int, most: int = 10) -> list[tuple[int, float]]:
        """(datum, influence) of the most influential data of a query, by size."""
        if query not in self.queries:
            raise BadRequest(f"There is no query {query}.", f"There are {self.queries[:8]}.")
        row = self.values[self.queries.index(query)]
        return [(self.data[at], float(row[at])) for at in np.argsort(-np.abs(row))[:most]]

    def to_frame(self) -> pd.DataFrame:
        """A row for each query, a column for each datum."""
        import pandas as pd

        return pd.DataFrame(self.values, index=self.queries, columns=self.data)

    def __repr__(self) -> str:
        return f"<influence of {len(self.data):,} data on {len(self.queries):,} queries>"


def influence(
    model: Module,
    checkpoints: Mapping[Any, Weights],
    data: Sequence[tuple[Any, Tensor]],
    queries: tuple[Any, Tensor],
    *,
    rates: Mapping[Any, float] | float = 1.0,
    losses: Losses = token_losses,
    parameters: Sequence[str] | None = None,
    normed: bool = False,
    uncovered: Sequence[str] = (),
) -> InfluenceTable:
    """TracIn over checkpoints: Σ rate · (gradient of the datum) · (gradient of the query).

    Args:
        model: with the names and shapes of the checkpoints; in evaluation mode meanwhile, and with its own weights again afterwards.
        checkpoints: weights by label.
        data: batches of (ids, tokens).
        queries: (ids, tokens).
        rates: the learning rates of the steps that a checkpoint stands for, summed; by label, or one for all.
        losses: of each datum, [rows].
        parameters: names of those whose gradients count; by default all.
        normed: divide each gradient by its norm, so that long and badly predicted data do not come first for that alone.
        uncovered: patterns of parameters that may be left out where they cannot be covered.

    Raises:
        BadData: weights are not those of the model.
        BadRequest: a checkpoint has no rate; what cannot be recorded.
    """
    if not checkpoints or not data:
        raise BadRequest("There are no checkpoints, or no data.", "Give at least one of both.")
    labels = list(checkpoints)
    given = rates if isinstance(rates, Mapping) else dict.fromkeys(labels, rates)
    if lacking := [label for label in labels if label not in given]:
        raise BadRequest(
            f"Checkpoint {lacking[0]} has no rate.", "Give one for each, or one for all."
        )
    reader = Reader(model, 0, uncovered)
    reader.install()
    ids: list[int] = []
    total: Array | None = None
    try:
        with at_each(model, checkpoints) as series:
            for label in series:
                asked = _gradients(reader, model, losses, *queries)
                own = asked.squares_of(parameters).sqrt() if normed else None
                columns, ids = [], []
                for batch in data:
                    found = _gradients(reader, model, losses, *batch)
                    dots = asked.dots_with(found, parameters)
                    if own is not None:
                        dots = dots / (own[:, None] * found.squares_of(parameters).sqrt()[None])
                    columns.append(dots.double().numpy())
                    ids += found.data
                rows: Array = np.concatenate(columns, 1) * given[label]
                total = rows if total is None else total + rows
    finally:
        reader.remove()
    assert total is not None
    return InfluenceTable(asked.data, ids, total)


def _gradients(reader: Reader, model: Module, losses: Losses, ids: Any, tokens: Tensor) -> PerDatum:
    import torch

    with torch.enable_grad():
        losses(model, tokens).sum().backward()
    found = reader.read(ids)
    model.zero_grad(set_to_none=True)
    return found


def leave_out(
    train: Callable[[frozenset[int]], Module],
    data: Sequence[int],
    queries: tuple[Any, Tensor],
    losses: Losses = token_losses,
) -> InfluenceTable:
    """The truth for a small model: how much higher each query's loss is after a training without each datum.

    Args:
        train: gives the model after a training that leaves out the data of some ids, and is the same otherwise: same start, same order, same batches.
        data: ids of those that are left out, one at a time.
        queries: (ids, tokens).
        losses: of each query, [rows].
    """
    import torch

    ids, tokens = queries
    numbers = [int(each) for each in torch.as_tensor(ids)]

    def after(left: frozenset[int]) -> Array:
        model = train(left).eval()
        with torch.no_grad():
            found: Array = losses(model, tokens).double().numpy()
        return found

    whole = after(frozenset())
    columns = [after(frozenset([datum])) - whole for datum in data]
    return InfluenceTable(numbers, list(data), np.stack(columns, 1))


def rank_correlation(one: InfluenceTable, other: InfluenceTable) -> Array:
    """Spearman's rank correlation over the data that both have, of each query, float64 [query].

    Raises:
        BadRequest: the queries differ, or fewer than three data are in both.
    """
    both = [datum for datum in one.data if datum in set(other.data)]
    if one.queries != other.queries or len(both) < 3:
        raise BadRequest(
            f"They have {len(both)} data in common, and the queries "
            f"{'differ' if one.queries != other.queries else 'are the same'}.",
            "Compare tables of the same queries and at least three data.",
        )
    ranked = [
        _ranks(each.values[:, [each.data.index(datum) for datum in both]]) for each in (one, other)
    ]
    first, second = (rows - rows.mean(1, keepdims=True) for rows in ranked)
    norms = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    found: Array = (first * second).sum(1) / np.where(norms > 0, norms, 1.0)
    return found


def _ranks(values: Array) -> Array:
    """Of each row the ranks; what is equal shares the mean."""
    found = np.empty(values.shape)
    for row in range(len(values)):
        _, places, counts = np.unique(values[row], return_inverse=True, return_counts=True)
        found[row] = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return found
