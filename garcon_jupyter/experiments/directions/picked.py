"""The vectors that stand for texts, kept beside the layer while the texts stream past.

Recorders and functions here are sent by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from garcon_jupyter.recorders import Recorder, Seen, State

Picks = Literal["last", "mean", "all"] | int
"""Of a text: its last token, the mean over its tokens, each of them, or the one at a position (negative from its end)."""


@dataclass(repr=False)
class PickedState(State):
    """Vectors of texts.

    Attributes:
        vectors: [units, n], in the order in which they were seen.
        documents: int64 [n], the text that each is of.
    """

    SHARED: ClassVar[tuple[str, ...]] = ("documents",)

    vectors: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, 0))
    documents: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.long))


class Picked(Recorder[PickedState]):
    """Whole vectors of the tokens that stand for a text; each text is a row of its own.

    Args:
        which: tokens of a text.
        texts: how many there are, for what it will take; 0 where that is not known.
    """

    name = "picked"
    state = PickedState
    sharded = False

    def __init__(self, which: Picks = "last", texts: int = 0) -> None:
        self.which, self.texts = which, texts

    def memory(self, units: int) -> int:
        """Of a vector for each text; of each token it depends on the texts."""
        return 0 if self.which == "all" else self.texts * (4 * units + 8)

    def update(self, state: PickedState | None, seen: Seen) -> PickedState:
        """Keep what stands for the texts of a batch."""
        values = seen.values if seen.values.dtype == torch.float64 else seen.values.float()
        parts = [(self._of(values[text]), int(seen.documents[text.start])) for text in _rows(seen)]
        vectors = [vectors for vectors, _ in parts if len(vectors)]
        documents = [seen.documents.new_full((len(v),), number) for v, number in parts]
        fresh = PickedState(
            seen.start,
            len(seen.tokens),
            (torch.cat(vectors) if vectors else values[:0]).T.clone(),
            torch.cat(documents) if documents else seen.documents[:0],
        )
        return fresh if state is None else self.add(state, fresh)

    def _of(self, values: Tensor) -> Tensor:
        """What stands for one text, [k, units], of all its tokens [p, units]."""
        if self.which == "all":
            return values
        if self.which == "mean":
            return values.double().mean(0, keepdim=True).to(values.dtype)
        at = -1 if self.which == "last" else int(self.which)
        at += len(values) if at < 0 else 0
        return values[at : at + 1] if at >= 0 else values[:0]

    def add(self, one: PickedState, other: PickedState) -> PickedState:
        """The vectors of both."""
        return PickedState(
            one.start,
            one.tokens_seen + other.tokens_seen,
            torch.cat([one.vectors, other.vectors], 1),
            torch.cat([one.documents, other.documents]),
        )


def _rows(seen: Seen) -> Iterator[slice]:
    """Where each row of a batch is among the tokens seen."""
    sizes = seen.rows.unique_consecutive(return_counts=True)[1].tolist()
    start = 0
    for size in sizes:
        yield slice(start, start + size)
        start += size
