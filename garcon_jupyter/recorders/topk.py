"""The largest and the smallest values of every unit, with where they were."""

from __future__ import annotations

import torch
from torch import Tensor

from garcon_jupyter.errors import BadProbe
from garcon_jupyter.recorders.base import Recorder, Seen
from garcon_jupyter.recorders.examples import WORST, Examples, sortable


class TopK(Recorder[Examples]):
    """The k largest values of every unit, with document and offset; NaN is no value.

    Most batches hold few values that are better than what is kept, so it looks at each unit's largest first,
    and only then for the tokens. Memory: 16 bytes for each unit and slot, and 8·(before + 1 + after) where
    a window is asked for.

    Args:
        k: how many.
        before: how many tokens before each to keep, with the unit's values there.
        after: the same after it. Windows end with the row and the document.
        name: under which the state is saved.
    """

    name = "topk"
    state = Examples
    sign = 1

    def __init__(self, k: int = 10, before: int = 0, after: int = 0, name: str = "") -> None:
        if k < 1 or before < 0 or after < 0:
            raise BadProbe(f"k={k}, before={before}, after={after} keep nothing.", "Give k ≥ 1.")
        self.k, self.before, self.after = int(k), int(before), int(after)
        self.name = name or type(self).name

    def update(self, state: Examples | None, seen: Seen) -> Examples:
        if state is None:
            units = seen.values.shape[1]
            state = Examples.empty(
                units, self.k, seen.start, self.before, self.after, seen.values.device
            )
        state.tokens_seen += len(seen.values)
        if len(seen.values):
            token, unit = self._candidates(state, seen)
            score = sortable(self.sign * seen.values[token, unit].float())
            state.offer(unit, score, token, unit, seen)
        return state

    def add(self, one: Examples, other: Examples) -> Examples:
        one.tokens_seen += other.tokens_seen
        one.take_all(other)
        return one

    def _candidates(self, state: Examples, seen: Seen) -> tuple[Tensor, Tensor]:
        """(token, unit) of every value that may be among the k best; few, and none is missed."""
        values, sign = seen.values, self.sign
        full = state.worst != WORST
        kth = torch.where(full, sign * state.values[:, -1], -torch.inf).to(values.dtype)
        best = values.amax(0) if sign > 0 else -values.amin(0)
        # Equal values count where their place is earlier, which is never in a run in order.
        again = bool((seen.places.min() < state.places[:, -1]).any())
        units = (~(best < kth) if again else ~(best <= kth)).nonzero().flatten()
        few = values[:, units] if len(units) < values.shape[1] else values
        few = few if sign > 0 else -few
        bound = kth[units]
        if not bool(full[units].all()):
            bound = torch.maximum(bound, _kth_best(few, self.k))
            again = True
        hits = few >= bound if again else few > bound
        token, column = hits.nonzero(as_tuple=True)
        return token, units[column]


class BottomK(TopK):
    """The k smallest values of every unit; otherwise as :class:`TopK`."""

    name = "bottomk"
    sign = -1


def _kth_best(values: Tensor, k: int) -> Tensor:
    """The k-th largest of each column; −inf where there are fewer."""
    usable = values.float().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    if len(usable) < k:
        return usable.new_full((usable.shape[1],), -torch.inf).to(values.dtype)
    return usable.t().contiguous().topk(k, 1).values[:, -1].to(values.dtype)
