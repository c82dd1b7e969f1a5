"""The largest and the smallest values of every unit, with where they were.

Most batches hold few values that are better than what is kept, and nothing is cheaper than to find that out: one pass
takes the *peak* of each unit in each stretch of tokens, and only stretches whose peak beats the unit's worst kept value
are looked into. While slots are empty, the k-th highest peak stands for that value, since k stretches reach it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from garcon_jupyter.errors import BadProbe
from garcon_jupyter.recorders.base import Recorder, check_counts
from garcon_jupyter.recorders.examples import WORST, Examples, sortable
from garcon_jupyter.recorders.observing import Seen
from garcon_jupyter.recorders.sparse_values import SparseValues

_STRETCH = 16
"""Tokens of a stretch, where there are many."""


class TopK(Recorder[Examples]):
    """The k largest values of every unit, with document and offset; NaN is no value.

    Memory: 16 bytes for each unit and slot, and 8·(before + 1 + after) where a window is asked for.

    Args:
        k: how many.
        before: how many tokens before each to keep, with the unit's values there.
        after: the same after it. Windows end with the row and the document.
        name: under which the state is saved.

    Examples:
        As a probe of every layer, while texts stream past:

        >>> probes = rmodel.probe_points["layers.4-6.mlp.post_activation"].probes(recorders.TopK(2))
        >>> run = rmodel.run(["Paris is large.", "Rome is old."], probes, show=False)
        >>> best = rmodel.recordings()["layers.4.mlp.post_activation"].topk
        >>> best.values.shape, best.documents.shape  # [units, k]
        (torch.Size([1536, 2]), torch.Size([1536, 2]))

        It needs no server; here a text of three tokens, at each of which two units have a value, [b, p, units].

        >>> values = torch.tensor([[[1.0, 5.0], [3.0, 4.0], [2.0, 6.0]]])
        >>> text = recorders.alone([[70, 80, 90]])
        >>> state = recorders.TopK(2).update(None, recorders.seen(values, text))
        >>> state.values
        tensor([[3., 2.],
                [6., 5.]])
        >>> state.offsets
        tensor([[1, 2],
                [2, 0]])
    """

    name = "topk"
    state = Examples
    SPARSE = True
    sign = 1

    def __init__(self, k: int = 10, before: int = 0, after: int = 0, name: str = "") -> None:
        check_counts(k=k, before=before, after=after)
        if k < 1 or before < 0 or after < 0:
            raise BadProbe(f"k={k}, before={before}, after={after} keep nothing.", "Give k ≥ 1.")
        self.k, self.before, self.after = int(k), int(before), int(after)
        self.name = name or type(self).name

    def update(self, state: Examples | None, seen: Seen) -> Examples:
        """Take in the values that beat the worst that a unit keeps; of equal ones the earlier is kept."""
        if state is None:
            units = seen.values.shape[1]
            state = Examples.empty(
                units, self.k, seen.start, self.before, self.after, seen.values.device
            )
        state.tokens_seen += len(seen.values)
        if len(seen.values):
            few = seen.sparse
            token, unit = (
                self._candidates(state, seen)
                if few is None
                else self._sparse_candidates(state, seen, few)
            )
            value = seen.at(token, unit).float()
            state.offer(unit, sortable(self.sign * value), value, token, unit, seen)
        return state

    def add(self, one: Examples, other: Examples) -> Examples:
        """The k best of both, with their places."""
        one.tokens_seen += other.tokens_seen
        one.take_all(other)
        return one

    def memory(self, units: int) -> int:
        """Bytes of value, document and offset of each slot, and of its window."""
        return Examples.memory(units, self.k, self.before, self.after)

    def _candidates(self, state: Examples, seen: Seen) -> tuple[Tensor, Tensor]:
        """(token, unit) of every value that may be among the k best; few, and none is missed."""
        values, sign = seen.values, self.sign
        length = max(1, min(_STRETCH, len(values) // (4 * self.k)))
        peaks = _peaks(values, length, sign)
        full = state.worst != WORST
        bound = torch.where(full, sign * state.values[:, -1], -torch.inf)
        # Equal values count where their place is earlier, which is never in a run in order.
        ties = bool((seen.places.min() < state.places[:, -1]).any())
        if not bool(full.all()):
            bound = torch.maximum(bound, _kth_highest(peaks, self.k))
            ties = True
        # Not "greater": a peak of NaN says nothing of the other values.
        stretch, unit = (~(peaks < bound) if ties else ~(peaks <= bound)).nonzero(as_tuple=True)
        token = stretch[:, None] * length + torch.arange(length, device=values.device)
        near = values[token.clamp(max=len(values) - 1), unit[:, None]].float()
        near, bound = near if sign > 0 else -near, bound[unit, None]
        hits = (near >= bound if ties else near > bound) & (token < len(values))
        which, within = hits.nonzero(as_tuple=True)
        return token[which, within], unit[which]

    def _sparse_candidates(
        self, state: Examples, seen: Seen, few: SparseValues
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`_candidates`: the values that beat what is kept; and zeros, where these do."""
        worst = self.sign * state.values[:, -1]
        bound = torch.where(state.worst != WORST, worst, -torch.inf)
        # Equal values count where their place is earlier; an empty slot has none.
        ties = seen.places.min() < state.places[:, -1]
        value, least = self.sign * few.value.float(), bound[few.unit]
        hits = (value > least) | ((value == least) & ties[few.unit])
        units = ((bound < 0) | ((bound == 0) & ties)).nonzero().flatten()
        if not len(units):
            return few.token[hits], few.unit[hits]
        token, unit = few.first_zeros(units, self.k, seen.places)
        return torch.cat([few.token[hits], token]), torch.cat([few.unit[hits], unit])


class BottomK(TopK):
    """The k smallest values of every unit; otherwise as :class:`TopK`."""

    name = "bottomk"
    SPARSE = True
    sign = -1


def _peaks(values: Tensor, length: int, sign: int) -> Tensor:
    """The largest of `sign` times the values of each unit in each stretch of tokens, float32 [stretches,
    units]; the last may be shorter."""
    whole = len(values) // length
    parts = [values[: whole * length].unflatten(0, (whole, length))]
    if whole * length < len(values):
        parts.append(values[None, whole * length :])
    return torch.cat([part.amax(1) if sign > 0 else -part.amin(1) for part in parts]).float()


def _kth_highest(peaks: Tensor, k: int) -> Tensor:
    """The k-th largest of each column; −inf where there are fewer."""
    if len(peaks) < k:
        return peaks.new_full((peaks.shape[1],), -torch.inf)
    usable = peaks.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return usable.T.topk(k, 1).values[:, -1]
