"""Saved values as trees: what is looked at, and what is made anew of what."""

from __future__ import annotations

import collections
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from garcon_backend.save_contexts.containers import Rows, Table
from garcon_backend.save_contexts.copies import copied
from garcon_backend.save_contexts.walking import Rebuild, inside, walk
from garcon_jupyter.recorders.covariance import CovarianceState

Named = collections.namedtuple("Named", "first second")


def ring() -> list[Any]:
    """A list that holds itself, twice."""
    made: list[Any] = ["leaf"]
    made += [made, {"again": made}]
    return made


def test_a_walk_comes_to_everything_once() -> None:
    tensor = torch.ones(2)
    shared = [tensor, "text"]
    found = list(walk([{"a": shared, "b": (shared, {4, "in a set"})}, 7, None]))
    assert sorted(value for value in found if isinstance(value, str)) == ["in a set", "text"]
    assert sum(value is tensor for value in found) == 1
    assert sum(value is shared for value in found) == 1
    assert 7 not in [value for value in found if isinstance(value, int)]


def test_a_walk_ends_where_a_list_holds_itself() -> None:
    assert [value for value in walk([ring()]) if isinstance(value, str)] == ["leaf"]


@pytest.mark.parametrize("depth", range(6))
def test_how_deep_a_walk_goes(depth: int) -> None:
    value: Any = "0"
    for number in range(1, 5):
        value = [value, str(number)]
    texts = {text for text in walk([value], depth=depth) if isinstance(text, str)}
    assert texts == {str(number) for number in range(max(0, 5 - depth), 5)} | (
        {"0"} if depth >= 4 else set()
    )


def test_what_is_close_is_found_though_it_is_far_as_well() -> None:
    """The shorter way counts: whoever goes down the first branch alone sees the list at its limit."""
    close = ["here"]
    far = [[close]]
    assert "here" in walk([far, close], depth=2)


def test_a_walk_that_follows_another_skips_what_that_saw() -> None:
    seen: set[Any] = set()
    rows = ["text"]
    assert list(walk([rows], seen=seen)) == [rows, "text"]
    assert list(walk([[rows]], seen=seen)) == [[rows]]


def test_the_state_of_a_recorder_is_looked_into() -> None:
    state = CovarianceState(tokens_seen=3, of="f", labels=("x",))
    assert "f" in walk([state]) and "x" in walk([state])
    assert inside(SimpleNamespace(a=1)) is None


class Doubled(Rebuild):
    def leaf(self, value: Any) -> Any:
        return value * 2 if isinstance(value, Tensor) else value


VALUES: dict[str, Any] = {
    "list": [torch.ones(1), 1, "a"],
    "rows": Rows(copied),
    "dict": {"a": torch.ones(1), 2: [None]},
    "table": Table(copied),
    "tuple": (torch.ones(1), (1, torch.ones(1))),
    "set": {torch.ones(1), 4},
    "frozen set": frozenset([(torch.ones(1),)]),
}


def tensors(value: Any) -> list[float]:
    return [float(item) for item in walk([value]) if isinstance(item, Tensor)]


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_containers_are_made_anew_and_leaves_as_it_says(value: Any) -> None:
    before = tensors(value)
    made = Doubled()(value)
    assert tensors(made) == [2.0] * len(before) and tensors(value) == [1.0] * len(before)
    assert type(made) is {Rows: list, Table: dict}.get(type(value), type(value))
    assert made is not value or not before


def test_what_is_referred_to_twice_is_so_afterwards() -> None:
    tensor = torch.ones(1)
    rows = [tensor]
    made = Doubled()({"a": rows, "b": (rows, tensor)})
    assert made["a"] is made["b"][0] and made["a"][0] is made["b"][1]
    around = Doubled()(ring())
    assert around[1] is around and around[2]["again"] is around


def test_of_a_state_the_attributes_are_made_anew() -> None:
    state = CovarianceState(tokens_seen=3, of="f")
    first = state.tensor_names()[0]
    setattr(state, first, torch.ones(1))
    made = Doubled()(state)
    assert type(made) is CovarianceState and (made.tokens_seen, made.of) == (3, "f")
    assert getattr(made, first) == 2 and getattr(state, first) == 1


def test_tuples_keep_their_kind() -> None:
    made = copied(Named(torch.ones(1), [1]))
    assert type(made) is Named and made.first == 1 and type(made.second) is Rows
    best = torch.arange(3.0).topk(2)
    assert copied(best).values.tolist() == [2, 1]
    whole = (1, "a")
    assert copied(whole) is whole  # nothing in it can change
