"""Covariance in one pass, with the tokens that may be massive kept apart until it is known which are.

Which norm is massive hangs on the median over all tokens, which is known at the end. So a token well below the border as it is
known so far goes into the covariance at once, and the vector of another is kept whole. Where the border fell so far that one
which went in should not have, the state says so (:attr:`ApartState.torn`), and the data is read again with the border given.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from garcon_jupyter.experiments.layer_views.massive import border
from garcon_jupyter.recorders import Covariance, CovarianceState, Recorder, Seen, State

SURE = 0.5
"""Part of the border so far below which a token is taken for ordinary at once."""


def _empty(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.empty(0, dtype=dtype)


@dataclass(repr=False)
class ApartState(State):
    """Covariance of ordinary tokens, and all others whole.

    Attributes:
        mean, products, squares: as of :class:`~garcon_jupyter.recorders.CovarianceState`, of `ordinary` tokens.
        held: [units, m], vectors of tokens that are not in these.
        norms: float64 [n] of all tokens, in the order in which they were seen.
        places: int64 [n], document and offset.
        ids: int64 [n], the tokens.
        held_at: int64 [m], which of the tokens the held ones are.
        ordinary: how many are in the covariance.
        longest: the largest norm among them.
    """

    SHARED: ClassVar[tuple[str, ...]] = ("norms", "places", "ids", "held_at")

    mean: Tensor = dataclasses.field(default_factory=_empty)
    products: Tensor = dataclasses.field(default_factory=_empty)
    squares: Tensor = dataclasses.field(default_factory=_empty)
    held: Tensor = dataclasses.field(default_factory=_empty)
    norms: Tensor = dataclasses.field(default_factory=_empty)
    places: Tensor = dataclasses.field(default_factory=lambda: _empty(torch.long))
    ids: Tensor = dataclasses.field(default_factory=lambda: _empty(torch.long))
    held_at: Tensor = dataclasses.field(default_factory=lambda: _empty(torch.long))
    ordinary: int = 0
    longest: float = 0.0

    @property
    def torn(self) -> bool:
        """Whether a massive token went into the covariance."""
        return self.longest > border(self.norms)

    def parted(self) -> tuple[CovarianceState, CovarianceState]:
        """Covariance of all tokens, and of those that are not massive."""
        whole = self._covariance()
        massive = self.norms[self.held_at] > border(self.norms)
        recorder = Covariance()
        ordinary = recorder.merge([whole, _of(self.held[:, ~massive], self.start)])
        return recorder.merge([ordinary, _of(self.held[:, massive], self.start)]), ordinary

    def _covariance(self) -> CovarianceState:
        one = self.mean, self.mean, self.products, self.squares, self.squares
        return CovarianceState(self.start, self.ordinary, *one)


def _of(vectors: Tensor, start: int) -> CovarianceState:
    seen = Seen(vectors.T, *(torch.zeros(vectors.shape[1], dtype=torch.long),) * 3, start)
    return Covariance().update(None, seen)


class Apart(Recorder[ApartState]):
    """Covariance of a point's units, with the vectors of tokens that may be massive kept apart.

    Args:
        known: the border between ordinary and massive norms, where it is known already.
    """

    name = "apart"
    state = ApartState
    sharded = False

    def __init__(self, known: float = 0.0) -> None:
        self.known = known

    def memory(self, units: int) -> int:
        """Of the pairs of units; that of norms and held vectors depends on the data."""
        return 8 * units * units + 16 * units

    def update(self, state: ApartState | None, seen: Seen) -> ApartState:
        """Sort the tokens of a batch into those for the covariance and those that are kept."""
        norms = seen.values.double().norm(dim=1).cpu()
        so_far = norms if state is None else torch.cat([state.norms, norms])
        least = self.known or SURE * border(so_far)
        kept = (norms > least).to(seen.values.device)
        covariance = Covariance().update(None, _part(seen, ~kept))
        ordinary = norms[norms <= least]
        fresh = ApartState(
            seen.start,
            len(norms),
            covariance.mean,
            covariance.products,
            covariance.squares,
            seen.values[kept].T.double(),
            norms,
            seen.places.cpu(),
            seen.tokens.cpu(),
            (norms > least).nonzero().flatten(),
            len(ordinary),
            float(ordinary.max()) if len(ordinary) else 0.0,
        )
        return fresh if state is None else self.add(state, fresh)

    def add(self, one: ApartState, other: ApartState) -> ApartState:
        """Both covariances, and all that was kept."""
        both = Covariance().add(one._covariance(), other._covariance())
        return replace(
            one,
            tokens_seen=one.tokens_seen + other.tokens_seen,
            mean=both.mean,
            products=both.products,
            squares=both.squares,
            held=torch.cat([one.held, other.held], 1),
            norms=torch.cat([one.norms, other.norms]),
            places=torch.cat([one.places, other.places]),
            ids=torch.cat([one.ids, other.ids]),
            held_at=torch.cat([one.held_at, other.held_at + len(one.norms)]),
            ordinary=one.ordinary + other.ordinary,
            longest=max(one.longest, other.longest),
        )


def _part(seen: Seen, chosen: Tensor) -> Seen:
    """Some of the tokens seen."""
    return replace(
        seen,
        values=seen.values[chosen],
        places=seen.places[chosen],
        tokens=seen.tokens[chosen],
        rows=seen.rows[chosen],
        firsts=None if seen.firsts is None else seen.firsts[chosen],
    )
