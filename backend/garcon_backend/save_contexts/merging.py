"""Recorded values on their way out: described and cut on the rank that holds them, merged where they are parts.

A sharded probe saves on every rank that holds a shard, in every replica. The rule it names says how the
parts become one: ``cat`` (shards along the sharded dimension, replicas along the batch; the default),
``sum``, ``topk`` (a dictionary with ``values`` and ``indices``, of which the k largest are kept), or a
function of the list of parts, ordered by replica and shard.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from garcon_backend.save_contexts.backups import Lost
from garcon_backend.save_contexts.containers import Rows, Table
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.wire.requests import AttributeInfo, Code


@dataclass(frozen=True)
class Sharded:
    """What one rank's part is a part of.

    Attributes:
        rule: how the parts are merged.
        dim: the sharded dimension of the point, counted from the end.
        rank: number of dimensions of the point.
        replica: which rows of the batch it saw.
        counts: whether this part counts; copies of a replicated value count once.
    """

    rule: str | Code | None
    dim: int
    rank: int
    replica: int
    counts: bool


@dataclass
class RankPart:
    """One rank's part of a recorded value; `of` is None where it is whole."""

    value: Any
    of: Sharded | None = None


def cut(value: Any, steps: Sequence[Any], what: str) -> Any:
    """A value after the steps of a handle: indexing, and methods of it.

    Raises:
        BadRequest: a step fails on this value.
    """
    for kind, *arguments in steps:
        try:
            if kind == "item":
                value = value[arguments[0]]
            else:
                method, args, kwargs = arguments
                value = getattr(value, method)(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - indexing raises whatever the saved type does
            raise BadRequest(
                f"{what} cannot be cut so: {type(error).__name__}: {error}.",
                "The shape of a handle is its .shape; fetch() takes it whole.",
            ) from None
    return value.detach() if isinstance(value, Tensor) else value


def as_dtype(value: Any, dtype: str | None) -> Any:
    """A floating-point tensor in the dtype that it shall travel in."""
    if dtype is None or not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    return value.to(getattr(torch, dtype))


def merged(parts: Sequence[RankPart], what: str, load: Callable[[Code], Any]) -> Any:
    """One value from the parts of all ranks that hold some.

    Raises:
        BadRequest: the rule does not fit what was saved.
    """
    first = parts[0]
    if first.of is None:
        return first.value
    counting = [part for part in parts if part.of and part.of.counts]
    values = [part.value for part in counting]
    rule = first.of.rule
    if isinstance(rule, Code):
        return load(rule)(values)
    if len(values) == 1:
        return values[0]
    try:
        if rule == "sum":
            return sum(values[1:], values[0])
        return _topk(values, what) if rule == "topk" else _joined(counting, what)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, BadRequest):
            raise
        raise BadRequest(
            f"The parts of {what} cannot be merged by {rule or 'cat'}: {error}.",
            "Save tensors that fit together, or name another rule: merge=….",
        ) from error


class _Preview(reprlib.Repr):
    repr_Rows = reprlib.Repr.repr_list
    repr_Table = reprlib.Repr.repr_dict


def describe(value: Any) -> AttributeInfo:
    """What a handle may know of a value without fetching it."""
    kind = {Rows: "list", Table: "dict"}.get(type(value), type(value).__name__)
    if isinstance(value, Lost):
        return AttributeInfo("lost", preview=repr(value))
    if isinstance(value, Tensor):
        return AttributeInfo(
            kind,
            tuple(value.shape),
            str(value.dtype).removeprefix("torch."),
            str(value.device),
            value.numel() * value.element_size(),
        )
    try:
        preview = _Preview().repr(value)
    except (Exception, SystemExit):  # noqa: BLE001 - objects may raise anything when asked that
        preview = f"<{kind}>"
    return AttributeInfo(kind, preview=preview if len(preview) < 80 else preview[:77] + "…")


def described(infos: Sequence[RankPart]) -> AttributeInfo:
    """What is known of a value of which each rank describes its part."""
    of = infos[0].of
    counting = [part for part in infos if part.of is None or part.of.counts] or infos
    first: AttributeInfo = counting[0].value
    lost: list[AttributeInfo] = [part.value for part in counting if part.value.kind == "lost"]
    if lost:
        return lost[0]
    if of is None or of.rule not in (None, "cat") or not first.shape:
        return first
    shards = [part.value for part in counting if part.of and part.of.replica == of.replica]
    replicas = {part.of.replica: part.value for part in counting if part.of}
    shape = list(first.shape)
    if len(shards) > 1:
        dim = of.dim if len(shape) == of.rank else -1
        shape[dim] = sum(info.shape[dim] for info in shards)
    if len(replicas) > 1:
        shape[0] = sum(info.shape[0] for info in replicas.values())
    nbytes = sum(part.value.nbytes or 0 for part in counting)
    return replace(first, shape=tuple(shape), nbytes=nbytes)


def _joined(parts: Sequence[RankPart], what: str) -> Any:
    of = parts[0].of
    assert of is not None
    if not all(isinstance(part.value, Tensor) and part.value.dim() for part in parts):
        raise BadRequest(
            f"{what} cannot be put together: it is no tensor with a dimension.",
            'Name another rule for sharded probes: merge="sum", or a function of the list of parts.',
        )
    replicas: dict[int, list[Tensor]] = {}
    for part in parts:
        assert part.of is not None
        replicas.setdefault(part.of.replica, []).append(part.value)
    dims = parts[0].value.dim()
    # A value that lost dimensions, such as a mean over tokens, still has its units last.
    dim = of.dim if dims == of.rank else -1
    rows = [
        torch.cat(shards, dim) if len(shards) > 1 else shards[0] for shards in replicas.values()
    ]
    if len(rows) > 1 and dims != of.rank:
        raise BadRequest(
            f"{what} has no batch dimension along which replicas could be put together.",
            'Name a rule: merge="sum", or a function of the list of parts.',
        )
    return torch.cat(rows, 0) if len(rows) > 1 else rows[0]


def _topk(values: Sequence[Any], what: str) -> dict[str, Tensor]:
    if not all(isinstance(value, dict) and {"values", "indices"} <= set(value) for value in values):
        raise BadRequest(
            f"{what} cannot be merged by top-k.",
            'Save {"values": …, "indices": …}, with the k largest on the last axis.',
        )
    scores = torch.cat([value["values"] for value in values], -1)
    indices = torch.cat([value["indices"] for value in values], -1)
    best = scores.topk(values[0]["values"].shape[-1], -1)
    return {"values": best.values, "indices": indices.gather(-1, best.indices)}
