"""What is saved is saved then: whatever holds memory of a tensor has its own from that moment on."""

from __future__ import annotations

import collections
import dataclasses
import functools
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from garcon_backend.save_contexts.contexts import Contexts
from garcon_backend.save_contexts.copies import copied
from garcon_backend.save_contexts.merging import describe
from garcon_backend.save_contexts.save_context import SaveContext, release_aliases
from garcon_jupyter.errors import WrongValue
from garcon_jupyter.wire import codec
from garcon_jupyter.wire.requests import AttributeInfo


@dataclasses.dataclass
class Box:
    value: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Slots:
    value: Any


class Mine:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Mine({self.value!r})"


class Cell:
    """As attrs makes them: slots, and no dictionary."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


Named = collections.namedtuple("Named", "first second")


def closure(tensor: Tensor) -> Callable[[], Tensor]:
    def inner() -> Tensor:
        return tensor

    return inner


KINDS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Any]]] = {
    "tensor": (lambda t: t, lambda v: v),
    "view": (lambda t: t[:, 1], lambda v: v),
    "list": (lambda t: [t], lambda v: v[0]),
    "tuple": (lambda t: (0, t), lambda v: v[1]),
    "dict": (lambda t: {"a": {"b": t}}, lambda v: v["a"]["b"]),
    "set": (lambda t: {t}, lambda v: next(iter(v))),
    "frozenset": (lambda t: frozenset([t]), lambda v: next(iter(v))),
    "deque": (lambda t: collections.deque([t]), lambda v: v[0]),
    "defaultdict": (lambda t: collections.defaultdict(list, a=[t]), lambda v: v["a"][0]),
    "array": (lambda t: t.numpy(), lambda v: v),
    "array, a view": (lambda t: t.numpy()[:, ::2], lambda v: v),
    "array of objects": (lambda t: _objects(t), lambda v: v[0]),
    "arrays": (lambda t: [t.numpy().T], lambda v: v[0]),
    "dataclass": (lambda t: Box(t), lambda v: v.value),
    "frozen": (lambda t: Slots(t), lambda v: v.value),
    "slots": (lambda t: Cell(t), lambda v: v.value),
    "namespace": (lambda t: types.SimpleNamespace(a=t), lambda v: v.a),
    "named tuple": (lambda t: Named(t, t.numpy()), lambda v: v.second),
    "class of one's own": (lambda t: Mine([Box(t.numpy())]), lambda v: v.value[0].value),
    "parameter": (lambda t: torch.nn.Parameter(t), lambda v: v),
    "module": (lambda t: _linear(t), lambda v: v.weight),
    "sparse": (lambda t: t.to_sparse(), lambda v: v.to_dense()),
    "partial": (lambda t: functools.partial(torch.add, t), lambda v: v.args[0]),
    "closure": (closure, lambda v: v()),
    "iterator": (lambda t: iter([t]), lambda v: next(v)),
    "memoryview": (lambda t: memoryview(t.numpy()), lambda v: np.frombuffer(v, np.float32)),
    "beside a lock": (
        lambda t: {"lock": threading.Lock(), "t": [Box(t)]},
        lambda v: v["t"][0].value,
    ),
}


def _objects(tensor: Tensor) -> Any:
    array = np.empty(1, dtype=object)
    array[0] = tensor
    return array


def _linear(tensor: Tensor) -> torch.nn.Linear:
    linear = torch.nn.Linear(3, 2, bias=False)
    linear.weight = torch.nn.Parameter(tensor)
    return linear


def fresh() -> Tensor:
    return torch.arange(1.0, 7.0).reshape(2, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_in_place_does_not_reach_what_was_saved(kind: str) -> None:
    make, inside = KINDS[kind]
    context, tensor = SaveContext(), fresh()
    context.saved = make(tensor)
    tensor.data.zero_()
    assert np.array_equal(np.asarray(_plain(inside(context.saved))), _expected(make, inside))


def _plain(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _expected(make: Callable[[Tensor], Any], inside: Callable[[Any], Any]) -> Any:
    return np.array(_plain(inside(make(fresh()))))


@pytest.mark.parametrize("kind", ["dataclass", "namespace", "list", "dict", "class of one's own"])
def test_it_stays_what_it_is_and_travels(kind: str) -> None:
    make, inside = KINDS[kind]
    context = SaveContext()
    context.saved = make(fresh())
    assert isinstance(context.saved, type(make(fresh())))
    arrived = codec.loads(*codec.dumps(context.saved))
    assert type(arrived) is type(make(fresh()))
    assert np.array_equal(np.asarray(inside(arrived)), _expected(make, inside))


def test_what_is_shared_in_a_value_is_shared_in_its_copy() -> None:
    context, tensor = SaveContext(), fresh()
    box = Box(tensor)
    context.saved = {"a": tensor, "box": box, "same": [box, tensor]}
    saved = context.saved
    assert saved["box"] is saved["same"][0] and saved["box"] is not box
    assert saved["a"] is saved["same"][1] is saved["box"].value


class Fleeting:
    """Makes its arrays when it is pickled, one after the other."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = numbers

    def __reduce__(self) -> Any:
        return _fleeting, tuple(One(n) for n in self.numbers)


class One:
    def __init__(self, number: float) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return float, (np.full(1, self.number),)


def _fleeting(*numbers: float) -> Fleeting:
    return Fleeting(*numbers)


def test_what_is_made_for_the_copy_alone_is_not_taken_for_another() -> None:
    context, numbers = SaveContext(), [float(n) for n in range(50)]
    context.saved = Fleeting(*numbers)
    assert list(context.saved.numbers) == numbers


def test_values_off_the_graph() -> None:
    context = SaveContext()
    on = fresh().requires_grad_() * 2
    context.saved = Box([on])
    assert not context.saved.value[0].requires_grad


def test_a_large_array_is_counted_when_it_is_saved() -> None:
    asked: list[int] = []
    context = SaveContext(asked.append)
    context.array = np.zeros(1 << 20)
    assert asked == [8 << 20]


PUTS: dict[str, Callable[[Any, Tensor], Any]] = {
    "append": lambda c, t: c.rows.append(t),
    "a view": lambda c, t: c.rows.append(t[0]),
    "an array": lambda c, t: c.rows.append(t.numpy()),
    "insert": lambda c, t: c.rows.insert(0, t),
    "extend": lambda c, t: c.rows.extend(row for row in t),
    "+=": lambda c, t: exec("c.rows += [t]", {"c": c, "t": t}),
    "an item": lambda c, t: c.table["deep"].append(Box(t)),
    "a slice": lambda c, t: c.rows.__setitem__(slice(0, 0), [t, t]),
    "a key": lambda c, t: c.table.__setitem__("x", t),
    "update": lambda c, t: c.table.update(x=(t,)),
    "setdefault": lambda c, t: c.table.setdefault("y", []).append(t),
    "|=": lambda c, t: c.table.__ior__({"z": t}),
}


def with_containers() -> SaveContext:
    context = SaveContext()
    context.rows, context.table = [], {"deep": []}
    return context


@pytest.mark.parametrize("put", PUTS.values(), ids=PUTS)
@pytest.mark.parametrize("again", [False, True], ids=["at once", "in a copy of a snapshot"])
def test_what_is_put_into_a_saved_container_is_as_it_was_then(put: Any, again: bool) -> None:
    context, tensor = with_containers(), fresh()
    if again:
        vars(context).update(copied(vars(context)))
    put(context, tensor)
    before = repr(vars(context))
    assert "3." in before
    tensor.zero_()
    assert repr(vars(context)) == before
    assert repr(codec.loads(*codec.dumps(vars(context)))) == before


BEHIND: dict[str, Callable[[Any, Tensor], Any]] = {
    "dataclass": lambda c, t: c.box.value.append(t),
    "deque": lambda c, t: c.queue.append(t[1:]),
    "array in an object": lambda c, t: setattr(c.mine, "value", t.numpy()),
    "defaultdict": lambda c, t: c.lists["x"].append(t),
}


def with_others() -> SaveContext:
    context = SaveContext()
    context.box, context.queue, context.mine = Box([]), collections.deque(), Mine(None)
    context.lists = collections.defaultdict(list)
    object.__setattr__(context, "_taken", None)  # as when a probe ran
    return context


@pytest.mark.parametrize("put", BEHIND.values(), ids=BEHIND)
def test_what_was_put_elsewhere_is_copied_when_the_probe_is_done(put: Any) -> None:
    context, tensor = with_others(), fresh()
    put(context, tensor)
    before = repr(vars(context))
    assert "5." in before
    release_aliases(context, tensor)
    tensor.zero_()
    assert repr(vars(context)) == before


@pytest.mark.parametrize("put", BEHIND.values(), ids=BEHIND)
def test_or_refused_where_nobody_knows_what_it_was(put: Any) -> None:
    context, tensor = with_others(), fresh()
    put(context, tensor)
    tensor.zero_()
    with pytest.raises(WrongValue, match=r"save_ctx\.\w+ was given is the tensor itself.*clone"):
        release_aliases(context, tensor, edited=True)
    context, other = with_others(), fresh()
    put(context, other)
    release_aliases(context, tensor, edited=True)  # memory of something else


def test_lists_that_came_back_own_what_is_put_in() -> None:
    contexts, tensor = Contexts(), fresh()
    contexts.install("me", {("point", None): ({"rows": [1], "table": {}}, {})})
    context = contexts.open("me", "point", None)
    context.rows.append(tensor)
    context.table["x"] = tensor
    tensor.zero_()
    assert torch.equal(context.rows[1], fresh()) and torch.equal(context.table["x"], fresh())


def test_containers_are_described_as_what_they_are() -> None:
    context = with_containers()
    context.rows.append([1, [2]])
    assert describe(context.rows) == AttributeInfo("list", preview="[[1, [2]]]")
    assert describe(context.table) == AttributeInfo("dict", preview="{'deep': []}")
