"""All contexts of a rank: what a snapshot holds while requests write on, and what a failed request leaves."""

from __future__ import annotations

import threading
from typing import Any

import torch

from garcon_backend.save_contexts.contexts import Contexts
from garcon_jupyter.recorders.covariance import CovarianceState

REF = ("layers.0.mlp.out", None)


def opened(contexts: Contexts) -> Any:
    return contexts.open("me", *REF)


def test_a_snapshot_is_what_was_there_when_it_was_taken() -> None:
    contexts = Contexts()
    context = opened(contexts)
    context.total, context.rows, context.n = torch.zeros(2), [[torch.zeros(1)]], 1
    context._keep("state", CovarianceState(tokens_seen=1))
    held = contexts.snapshot("me", 1)[REF].values
    context = opened(contexts)
    context.total += 1
    context.rows[0][0] += 1
    context.rows.append(2)
    context.state.tokens_seen, context.n = 9, 2
    assert (held["total"].tolist(), held["n"], held["state"].tokens_seen) == ([0, 0], 1, 1)
    assert held["rows"] == [[torch.zeros(1)]]
    assert context.total.tolist() == [1, 1] and context.rows == [[torch.ones(1)], 2]


def test_what_nobody_holds_is_not_copied() -> None:
    contexts = Contexts()
    context = opened(contexts)
    context.total = torch.zeros(2)
    total = context.total
    assert opened(contexts).total is total
    contexts.snapshot("me", 1)
    assert opened(contexts).total is not total
    total = context.total
    assert opened(contexts).total is total  # once is enough
    contexts.snapshot("me", 2)
    contexts.release("me", [1, 2])
    assert opened(contexts).total is total


def test_a_copy_for_a_snapshot_shares_what_was_shared_and_copies_what_it_can() -> None:
    contexts, lock = Contexts(), threading.Lock()
    context = opened(contexts)
    context.mixed = {"lock": lock, "rows": [torch.zeros(1)]}
    context._keep("same", context.mixed["rows"])
    held = contexts.snapshot("me", 1)[REF].values
    context = opened(contexts)
    assert context.same is context.mixed["rows"] and context.same is not held["same"]
    context.same[0] += 1
    assert held["mixed"]["rows"][0] == 0 and held["mixed"]["lock"] is lock


def nested(depth: int) -> tuple[Any, list[Any]]:
    """A list in lists, so deep, and the innermost."""
    innermost: list[Any] = [1]
    value: Any = innermost
    for _ in range(depth):
        value = [value]
    return value, innermost


def test_what_a_failed_request_saved_is_taken_back_however_deep() -> None:
    contexts = Contexts()
    context = opened(contexts)
    context.deep, context.table, context.n = nested(12)[0], {"a": (1, [2])}, 1
    contexts.quota.begin()
    context = opened(contexts)
    innermost = context.deep
    while isinstance(innermost[0], list):
        innermost = innermost[0]
    innermost.append(torch.zeros(1))
    context.table["a"][1].append(3)
    context.table["b"] = 4
    context.n, context.more = 2, 5
    contexts.quota.take_back()
    assert vars(context) == {"deep": nested(12)[0], "table": {"a": (1, [2])}, "n": 1}


def test_what_is_taken_back_is_what_was_there_before_a_copy_for_a_snapshot() -> None:
    contexts = Contexts()
    context = opened(contexts)
    context.total = torch.zeros(1)
    contexts.snapshot("me", 1)
    contexts.quota.begin()
    opened(contexts).total += 1
    contexts.quota.take_back()
    assert context.total == 0
