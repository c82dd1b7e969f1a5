"""Texts with labels for the small Llama, and what plain hooks see of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from tests.oracle import Plain

LAYERS = 4
WORD = 77
"""A token; texts that have it in their midst have the label True."""


def texts(count: int = 40) -> tuple[list[list[int]], list[bool]]:
    """Rows of token ids of 5 to 9 tokens, and whether they have :data:`WORD`."""
    draw = torch.Generator().manual_seed(3)
    rows, labels = [], []
    for number in range(count):
        row = torch.randint(100, 250, (5 + number % 5,), generator=draw).tolist()
        labels.append(number % 3 == 0)
        if labels[-1]:
            row[2] = WORD
        rows.append(row)
    return rows, labels


def stream(plain: Plain, layer: int, rows: Iterable[list[int]]) -> list[Tensor]:
    """What leaves a layer, float64 [p, D] of each row, each read alone."""
    return [plain.output(f"model.layers.{layer}", [row])[0].double() for row in rows]
