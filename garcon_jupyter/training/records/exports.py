"""A record's numbers in the layouts that others read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.errors import BadData, BadRequest

Array = np.ndarray[Any, Any]


def to_bergson(path: Path, units: Sequence[str], k: int, steps: Iterable[Array]) -> None:
    """Write projections as bergson (2.5) lays out an index of gradients.

    Args:
        path: the directory.
        units: names of the weights.
        k: numbers on a side.
        steps: [data, units, k, k] of each step.

    Raises:
        BadRequest: there are none.
        BadData: the directory cannot be written.
    """
    if not k:
        raise BadRequest("The record has no projections.", "Record with projection=16.")
    modules, count = [name.removesuffix(".weight") for name in units], 0
    try:
        path.mkdir(parents=True, exist_ok=True)
        with (path / "gradients.bin").open("wb") as stream:
            for numbers in steps:
                stream.write(np.ascontiguousarray(numbers, "<f4").tobytes())
                count += len(numbers)
        told = {
            "attribute_tokens": False,
            "num_items": count,
            "num_grads": count,
            "grad_sizes": dict.fromkeys(modules, k * k),
            "base_dtype": "float32",
        }
        (path / "info.json").write_text(json.dumps(told, indent=2))
    except OSError as error:
        raise BadData(f"{path} cannot be written: {error}.", "Give another.") from None
