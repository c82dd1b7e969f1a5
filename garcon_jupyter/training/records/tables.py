"""Outliers of a record, as columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SIDES = ("hidden unit", "residual channel")
"""What a row or a column of a weight is."""


@dataclass(frozen=True, eq=False)
class OutlierTable:
    """Some outliers of a record, each with where and when it was.

    Attributes:
        steps: int64.
        data: ids, int64.
        units: number of the weight in the record's ``units``, int64.
        rows: int64.
        columns: int64.
        values: gradients, float32; before clipping.
        moves: how far the datum moved the weight there; NaN where that was not recorded.
    """

    steps: Array
    data: Array
    units: Array
    rows: Array
    columns: Array
    values: Array
    moves: Array

    def __len__(self) -> int:
        return len(self.steps)

    def where(self, kept: Array) -> OutlierTable:
        """Some of them, by a mask or their numbers."""
        return OutlierTable(*(each[kept] for each in vars(self).values()))


def joined(tables: list[OutlierTable]) -> OutlierTable:
    """Tables, one after the other."""
    kinds: Mapping[str, Any] = {
        "steps": np.int64,
        "data": np.int64,
        "units": np.int64,
        "rows": np.int64,
        "columns": np.int64,
        "values": np.float32,
        "moves": np.float32,
    }
    return OutlierTable(
        **{
            name: np.concatenate([np.empty(0, kind), *(getattr(each, name) for each in tables)])
            for name, kind in kinds.items()
        }
    )
