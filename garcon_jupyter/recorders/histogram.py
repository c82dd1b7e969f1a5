"""Histograms with logarithmic bins, and the quantiles that they hold.

A bin is what floating-point numbers have in common that begin with the same bits: octaves, each cut into equal parts.
So its edges are exact, and finding it is a shift of bits. Quantiles of such bins have a relative error that
is known beforehand, for any data, and bins of any two batches add up: the idea of DDSketch (Masson, Rim and
Lee 2019), here for many units at once, where libraries take one value at a time.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from garcon_jupyter.errors import BadProbe
from garcon_jupyter.recorders.base import Recorder, check_counts
from garcon_jupyter.recorders.observing import Seen
from garcon_jupyter.recorders.sparse_values import SparseValues
from garcon_jupyter.recorders.states import State

_MANTISSA = 23
_BIAS = 127
_INFINITY = 0x7F800000
"""Bits of infinity; those of NaN, without the sign, are above."""


@dataclass(repr=False)
class HistogramState(State):
    """Counts of every unit's values.

    Bins go from the most negative to the most positive: ``-sides … -1, zero, 1 … sides``. The bin of zero holds
    whatever is smaller in magnitude than 2**low; the outermost ones hold what is larger than 2**high.

    Attributes:
        counts: int64 [units, 2·sides + 1].
        low, high: exponents of the smallest and the largest edge.
        bits: each octave is cut into 2**bits parts.
    """

    counts: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    low: int = -16
    high: int = 8
    bits: int = 2

    @property
    def edges(self) -> Tensor:
        """Edges of the bins in ascending order, float64 [2·sides + 2]; the outermost are ±inf."""
        side = _edges(self.low, self.high, self.bits)
        ends = torch.tensor([torch.inf], dtype=torch.float64)
        return torch.cat([-ends, -side.flip(0), side, ends])

    @property
    def relative_error(self) -> float:
        """Largest relative error of a quantile whose magnitude is between the outermost edges."""
        return 1.0 / (int(2 ** (self.bits + 1)) + 1)

    def quantile(self, q: float) -> Tensor:
        """A quantile of every unit: within the relative error of the value of rank ``q·(n − 1)``, rounded
        down. float64 [units]; NaN where nothing was seen."""
        n = self.counts.sum(1)
        rank = (n - 1).double().mul(q).floor().clamp(min=0).long()
        bin_ = (self.counts.cumsum(1) <= rank[:, None]).sum(1)
        found = self._middles().to(bin_.device)[bin_.clamp(max=self.counts.shape[1] - 1)]
        return torch.where(n > 0, found, torch.nan)

    def _middles(self) -> Tensor:
        """What stands for each bin: the value of least relative error."""
        edges = _edges(self.low, self.high, self.bits)
        inner = 2 * edges[:-1] * edges[1:] / (edges[:-1] + edges[1:])
        side = torch.cat([inner, edges[-1:]])
        return torch.cat([-side.flip(0), torch.zeros(1, dtype=torch.float64), side])


def _edges(low: int, high: int, bits: int) -> Tensor:
    """Positive edges, float64 [(high − low)·2**bits + 1]."""
    number = torch.arange((high - low) * 2**bits + 1, dtype=torch.float64)
    octave = (number / 2**bits).floor()
    edges: Tensor = torch.pow(2.0, low + octave) * (1 + number / 2**bits - octave)
    return edges


class Histogram(Recorder[HistogramState]):
    """A histogram of every unit, with logarithmic bins on both sides of zero; NaN is not counted.

    Memory: ``8·(2·((high − low)·2**bits + 1) + 1)`` bytes for each unit; 1,560 by default.

    Args:
        low: what is smaller than 2**low in magnitude counts as zero.
        high: what is larger than 2**high goes into the outermost bins.
        bits: each octave is cut into 2**bits equal parts.
        name: under which the state is saved.
    """

    name = "histogram"
    state = HistogramState
    SPARSE = True

    def __init__(self, low: int = -16, high: int = 8, bits: int = 2, name: str = "") -> None:
        check_counts(low=low, high=high, bits=bits)
        if not -120 <= low < high <= 120 or not 0 <= bits <= 10:
            raise BadProbe(
                f"low={low}, high={high}, bits={bits} are no bins.",
                "Give -120 ≤ low < high ≤ 120 and 0 ≤ bits ≤ 10.",
            )
        self.low, self.high, self.bits = int(low), int(high), int(bits)
        self.name = name or type(self).name

    @property
    def bins(self) -> int:
        """Bins of each unit."""
        return 2 * ((self.high - self.low) * int(2**self.bits) + 1) + 1

    @property
    def edges(self) -> Tensor:
        """Their edges; see :class:`HistogramState`."""
        return HistogramState(low=self.low, high=self.high, bits=self.bits).edges

    def update(self, state: HistogramState | None, seen: Seen) -> HistogramState:
        """Count each value in its bin; values beyond the ends go to the outermost, NaN to none."""
        n, units = seen.values.shape
        width, device = self.bins, seen.values.device
        if state is None:
            counts = torch.zeros(units, width, dtype=torch.long, device=device)
            state = HistogramState(seen.start, 0, counts, self.low, self.high, self.bits)
        if seen.sparse is not None:
            self._count_sparse(state.counts, seen.sparse)
            state.tokens_seen += n
            return state
        # Units follow one another in one long row of bins; after them is one for NaN, which is dropped.
        zeros = torch.arange(units, dtype=torch.int32, device=device).mul_(width).add_(width // 2)
        bins = torch.empty(n, units, dtype=torch.int32, device=device)
        first = 0
        for values in seen.pieces():
            piece = bins[first : first + len(values)]
            raw = values.float().contiguous().view(torch.int32)
            self._find_bins(raw, zeros, piece, units * width)
            first += len(values)
        counts = torch.bincount(bins.flatten(), minlength=units * width + 1)
        state.counts += counts[: units * width].view(units, width)
        state.tokens_seen += n
        return state

    def _count_sparse(self, counts: Tensor, few: SparseValues) -> None:
        """Add the values that are not 0 to their bins, and the others to the bin of zero."""
        zeros = (few.unit * self.bins + self.bins // 2).int()
        bins = torch.empty_like(zeros)
        raw = few.value.float().contiguous().view(torch.int32)
        self._find_bins(raw, zeros, bins, counts.numel())
        real = bins < counts.numel()
        one = torch.ones((), dtype=torch.long, device=bins.device).expand(bins.shape)
        counts.view(-1).index_add_(0, bins[real], one[real])
        counts[:, self.bins // 2] += few.n - few.counts

    def memory(self, units: int) -> int:
        """8 bytes for each bin and unit."""
        return 8 * self.bins * units

    def _find_bins(self, raw: Tensor, zeros: Tensor, bins: Tensor, none: int) -> None:
        """Write the bin of each value, given as the bits of float32, into `bins`; `none` for NaN."""
        torch.bitwise_and(raw, 0x7FFFFFFF, out=bins)
        nan = bins > _INFINITY if bool(bins.numel()) and int(bins.amax()) > _INFINITY else None
        bins >>= _MANTISSA - self.bits
        bins -= ((self.low + _BIAS) << self.bits) - 1
        bins.clamp_(0, self.bins // 2)
        sign = raw >> 31  # −1 or 0: in two's complement, (x ^ −1) − −1 is −x
        bins ^= sign
        bins -= sign
        bins += zeros
        if nan is not None:
            bins.masked_fill_(nan, none)

    def add(self, one: HistogramState, other: HistogramState) -> HistogramState:
        """The sum of the counts."""
        one.counts = one.counts + other.counts
        one.tokens_seen += other.tokens_seen
        return one


class Quantiles(Histogram):
    """A quantile sketch of every unit: ``state.quantile(0.99)``.

    Args:
        error: largest relative error of a quantile; the bins are the coarsest that keep it.
        low, high: as for :class:`Histogram`: outside of 2**low … 2**high errors are larger.
        name: under which the state is saved.
    """

    name = "quantiles"
    SPARSE = True

    def __init__(self, error: float = 0.02, low: int = -16, high: int = 8, name: str = "") -> None:
        fits = [bits for bits in range(11) if 1 / (2 ** (bits + 1) + 1) <= error]
        if not fits:
            raise BadProbe(f"A relative error of {error} is too small.", "Give at least 0.0005.")
        super().__init__(low, high, fits[0], name)
        self.error = error
