"""Atlases of a fleet's members, held against those that their models make by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import garcon_jupyter as garcon

POINTS = "layers.{0,2}.mlp.post_activation"
TEXTS = [f"text {n} of {n % 5} kinds, and some more words" for n in range(8)]
OPTIONS: dict[str, Any] = {"k": 3, "before": 2, "after": 1, "each": 2, "batch_tokens": 64}


def made_by(model: garcon.RemoteModel, where: Path) -> garcon.Atlas:
    """The atlas that a model makes by itself, of the same data."""
    return model.atlas(POINTS, TEXTS, where, show=False, **OPTIONS)


def differences(one: Path, other: Path) -> list[str]:
    """The arrays of two atlases that are not the same, to the bit."""
    names = sorted(file.name for file in one.glob("*.npy"))
    assert names and names == sorted(file.name for file in other.glob("*.npy"))
    return [name for name in names if (one / name).read_bytes() != (other / name).read_bytes()]
