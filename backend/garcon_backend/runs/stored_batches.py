"""The rows of a store as batches, from which a dictionary is trained without a model.

A batch says by `before` which rows it is; the rows themselves are read by the ranks that train.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from garcon_backend.runs.batches import Position
from garcon_jupyter.activation_stores import ActivationStore
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.wire.requests import Batch
from garcon_jupyter.wire.runs import Plan


class StoredBatches:
    """Batches of a store, in the order of its rows.

    Args:
        position: where to begin.

    Raises:
        BadRequest: the plan makes no sense for a store.
    """

    def __init__(self, store: ActivationStore, plan: Plan, position: Position) -> None:
        self._store, self._plan = store, plan
        self.position = position
        if plan.batch_tokens < 1:
            raise BadRequest(f"batch_tokens={plan.batch_tokens} hold nothing.", "Give at least 1.")

    def back(self, position: Position) -> None:
        """Go back to where a batch began that was not used."""
        self.position = position

    def next(self) -> tuple[Batch, int] | None:
        """The next batch and the number of its rows; None at the end."""
        at, rows = self.position, self._store.rows
        end = rows if self._plan.most_tokens is None else min(rows, self._plan.most_tokens)
        count = min(self._plan.batch_tokens, end - at.tokens)
        if count <= 0:
            return None
        done = at.tokens + count
        self.position = replace(
            at, tokens=done, batches=at.batches + 1, read=done / rows, fraction=done / rows
        )
        ids = torch.zeros(count, 1, dtype=torch.long)
        return Batch(ids, step=at.batches, before=at.tokens), count
