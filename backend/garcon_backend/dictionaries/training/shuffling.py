"""A buffer in memory that gives rows in another order.

It is filled first. Then each batch of rows that comes takes the places of a batch drawn at random from all, which is given. So a row
is given once, never before the buffer is full, and after a wait that is geometric: the mean is the buffer's size. What is still there
when no more rows come is given in a random order. Every draw is by a seed and a number, so that a buffer whose rows were written down
goes on as it would have.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_DRAWS = 1 << 32
"""How far seeds are from one another: further than draws ever come."""


class ShuffleBuffer:
    """Rows waiting to be drawn.

    Args:
        rows: that it holds.
        width: numbers of a row.
        batch: rows that are drawn together.
        seed: of the order.

    Attributes:
        filled: rows that are there.
        drawn: batches that were given.
    """

    def __init__(self, rows: int, width: int, batch: int, seed: int, device: torch.device) -> None:
        self._held = torch.empty(max(rows, batch), width, device=device)
        self._waiting = torch.empty(batch, width, device=device)
        self._seed = seed
        self.filled = self.waits = self.drawn = 0
        self._order: Tensor | None = None
        """Of what is left, once no more rows come."""
        self._given = 0

    @property
    def full(self) -> bool:
        """Whether rows are drawn when others come."""
        return self.filled == len(self._held)

    @property
    def rows(self) -> Tensor:
        """Those that are there, [n, width]."""
        return self._held[: self.filled]

    def put(self, rows: Tensor) -> Iterator[Tensor]:
        """Take in rows [n, width], and give the batches that they drive out, [batch, width]."""
        while len(rows):
            into, at = (self._waiting, self.waits) if self.full else (self._held, self.filled)
            taken = rows[: len(into) - at]
            into[at : at + len(taken)] = taken
            rows = rows[len(taken) :]
            if into is self._held:
                self.filled += len(taken)
            else:
                self.waits += len(taken)
            if self.waits == len(self._waiting):
                places = self._random(len(self._held))[: self.waits]
                batch = self._held[places]
                self._held[places] = self._waiting
                self.waits, self.drawn = 0, self.drawn + 1
                yield batch

    def rest(self) -> Tensor | None:
        """The next batch of what is left when no more rows come; None where less than a batch is left."""
        if self._order is None:
            self._order = self._random(self.filled + self.waits)
        places = self._order[self._given : self._given + len(self._waiting)]
        if len(places) < len(self._waiting):
            return None
        self._given += len(places)
        self.drawn += 1
        held = places < self.filled
        late = self._waiting[(places - self.filled).clamp(min=0)]
        return torch.where(held[:, None], self._held[places.clamp(max=len(self._held) - 1)], late)

    def _random(self, n: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._seed * _DRAWS + self.drawn)
        return torch.randperm(n, generator=generator).to(self._held.device)

    def state(self) -> dict[str, Tensor]:
        """All that it needs to go on: its own tensors, no copies."""
        numbers = [self.filled, self.waits, self.drawn, self._given, self._order is not None]
        return {
            "held": self.rows,
            "waiting": self._waiting[: self.waits],
            "numbers": torch.tensor(numbers),
            "order": torch.empty(0, dtype=torch.long) if self._order is None else self._order,
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Be as it was."""
        self.filled, self.waits, self.drawn, self._given, ends = map(int, state["numbers"].tolist())
        self._held[: self.filled] = state["held"]
        self._waiting[: self.waits] = state["waiting"]
        self._order = state["order"].to(self._held.device) if ends else None
