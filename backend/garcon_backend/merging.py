"""Recorded values on their way out: cut on the rank that holds them, merged where they are shards.

A sharded probe saves on every rank of its group. The rule it names says how the parts become one:
``cat`` (along the sharded dimension, the default), ``sum``, ``topk`` (a dictionary with ``values`` and
``indices``, of which the k largest are kept), or a function of the list of parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.wire.requests import Code

RULES = ("cat", "sum", "topk")


@dataclass
class Part:
    """One rank's part of a value.

    Attributes:
        rule: None where the value is whole; else how the parts are merged.
        dim: the sharded dimension, counted from the end.
    """

    value: Any
    rule: Any = None
    dim: int = -1


def part(
    value: Any,
    steps: Sequence[Any],
    dtype: str | None,
    rule: tuple[Any, int] | None,
    load: Callable[[Code], Any],
) -> Part:
    """A value cut and reduced by `steps`, in the dtype it shall travel in."""
    for kind, *arguments in steps:
        if kind == "item":
            value = value[arguments[0]]
        else:
            method, args, kwargs = arguments
            value = getattr(value, method)(*args, **kwargs)
    if isinstance(value, Tensor):
        value = value.detach()
        if dtype is not None and value.is_floating_point():
            value = value.to(getattr(torch, dtype))
    if rule is None:
        return Part(value)
    merge, dim = rule
    return Part(value, load(merge) if isinstance(merge, Code) else merge or "cat", dim)


def merged(parts: Sequence[Part], what: str) -> Any:
    """One value from the parts of all ranks that hold some."""
    first = parts[0]
    if first.rule is None or len(parts) == 1:
        return first.value
    values = [part.value for part in parts]
    if callable(first.rule):
        return first.rule(values)
    if first.rule == "sum":
        return sum(values[1:], values[0])
    if first.rule == "topk":
        return _topk(values, what)
    if not all(isinstance(value, Tensor) for value in values):
        return values
    return torch.cat(values, first.dim if values[0].dim() >= -first.dim else -1)


def _topk(values: Sequence[Any], what: str) -> dict[str, Tensor]:
    if not all(isinstance(value, dict) and {"values", "indices"} <= set(value) for value in values):
        raise BadRequest(
            f"{what} cannot be merged by top-k.",
            'Save {"values": …, "indices": …} with the units on the first axis.',
        )
    scores = torch.cat([value["values"] for value in values], -1)
    indices = torch.cat([value["indices"] for value in values], -1)
    best = scores.topk(values[0]["values"].shape[-1], -1)
    return {"values": best.values, "indices": indices.gather(-1, best.indices)}
