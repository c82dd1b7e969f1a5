"""Many edits in one pass: each point that is edited has a copy of the texts to itself.

The texts stand in a batch as often as there are points, and the edit at a point is made in the rows of its own copy. What comes
out of that copy is what an edit at that point alone makes of the texts, since rows know nothing of one another. So a pass tells
of ten points what ten passes would. How a module is run depends on which of its points are looked at, so points are dealt to a few
passes, neighbours to different ones; and an expert's neurons, which are not in rows, have a pass to themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.backend.cases import IDS, MASK, loss

PASSES = 3
"""Over how many passes points are dealt."""

ROWS = len(IDS)
"""Of one copy."""


@dataclass(frozen=True)
class Copies:
    """One pass: a copy of the texts for each of some points."""

    names: tuple[str, ...]

    @property
    def ids(self) -> Tensor:
        """[copies · 2, 9]."""
        return IDS.repeat(len(self.names), 1)

    @property
    def mask(self) -> Tensor:
        return MASK.repeat(len(self.names), 1)

    def rows(self, name: str) -> slice:
        """Those of a point's copy."""
        first = self.names.index(name) * ROWS
        return slice(first, first + ROWS)

    def of_each(self, value: Tensor) -> dict[str, Tensor]:
        """A value [copies · 2, …] of the pass, copy by copy."""
        return {name: value[self.rows(name)] for name in self.names}

    def edits(self, edit: Callable[..., Any]) -> dict[str, Callable[[Tensor], Any]]:
        """An edit of one row, `edit(value, row)`, for the first row of each point's copy."""
        return {name: partial(edit, row=self.rows(name).start) for name in self.names}

    def halved(self, name: str, gradient: Tensor) -> Tensor:
        """A gradient at a point, by half of it in the point's copy."""
        halved = gradient.clone()
        halved[slice(None) if is_of_an_expert(name) else self.rows(name)] *= 0.5
        return halved

    def loss(self, logits: Tensor) -> Tensor:
        """The loss of the cases, of each copy."""
        return torch.stack([loss(copy) for copy in self.of_each(logits).values()]).sum()


def copies(names: Sequence[str]) -> Iterator[Copies]:
    """Passes for all of these points."""
    in_rows = [name for name in names if not is_of_an_expert(name)]
    for number in range(min(PASSES, len(in_rows))):
        yield Copies(tuple(in_rows[number::PASSES]))
    for name in names:
        if is_of_an_expert(name):
            yield Copies((name,))


def is_of_an_expert(name: str) -> bool:
    """Whether a point's value is of the tokens routed to an expert, [n, M], and not [b, …]."""
    return ".experts." in name
