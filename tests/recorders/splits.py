"""Data dealt out in every way that a server may deal it: batches, replicas, shards, any order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from garcon_jupyter.recorders import Recorder, Seen
from garcon_jupyter.recorders.observing import places_of


@dataclass(frozen=True)
class Data:
    """All that a recorder may see: values [n, units], one document of up to five tokens after the other."""

    values: Tensor
    documents: Tensor
    offsets: Tensor
    tokens: Tensor

    def seen(self, rows: Any = slice(None), units: slice = slice(None)) -> Seen:
        """A part of it, as one shard of one batch."""
        places = places_of(self.documents[rows], self.offsets[rows])
        start = units.start or 0
        return Seen(
            self.values[rows, units], places, self.tokens[rows], self.documents[rows], start
        )


def make(seed: int, n: int, units: int, kind: str) -> Data:
    """Random data: smooth, with many equal values, or with zeros, infinities and NaN."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(n, units)).astype(np.float32)
    if kind == "equal":
        values = random.integers(-2, 3, size=(n, units)).astype(np.float32) / 2
    if kind == "odd":
        odd = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-30, -1e30, 1.0], dtype=np.float32)
        values = random.choice(odd, size=(n, units))
    place = np.arange(n)
    return Data(
        torch.from_numpy(values),
        torch.from_numpy(place // 5),
        torch.from_numpy(place % 5),
        torch.from_numpy(random.integers(0, 7, size=n)),
    )


def gathered(recorder: Recorder[Any], data: Data, seed: int) -> Any:
    """The recorder's state after the data came in random pieces, to random replicas and shards."""
    random = np.random.default_rng(seed)
    n, units = data.values.shape
    cuts = sorted(set(random.integers(0, n + 1, size=random.integers(0, 4)).tolist()) | {0, n})
    pieces = [slice(a, b) for a, b in itertools.pairwise(cuts)]
    random.shuffle(pieces)
    middle = int(random.integers(1, units)) if recorder.sharded and units > 1 else units
    shards = [slice(0, middle), slice(middle, units)] if middle < units else [slice(0, units)]
    replicas = int(random.integers(1, 4))
    states: dict[tuple[int, int], Any] = {}
    for piece in pieces:
        replica = int(random.integers(replicas))
        for number, shard in enumerate(shards):
            before = states.get((replica, number))
            states[replica, number] = recorder.update(before, data.seen(piece, shard))
    parts = list(states.values())
    random.shuffle(parts)
    return recorder.merge(parts)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 6))
seeds = st.integers(0, 10_000)
kinds = st.sampled_from(["smooth", "equal", "odd"])
