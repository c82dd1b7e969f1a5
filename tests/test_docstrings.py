"""Docstrings: examples are true, each run on a real server line by line; and every public method has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import types
from collections.abc import Iterable
from typing import Any

import pytest
import torch

import garcon_backend
import garcon_jupyter as garcon
from garcon_jupyter import experiments, recorders

WITH_EXAMPLES: dict[str, Any] = {
    "launch": garcon.launch,
    "Probe": garcon.Probe,
    "Handle": garcon.Handle,
    "forward": garcon.RemoteModel.forward,
    "recordings": garcon.RemoteModel.recordings,
    "train_dictionary": garcon.RemoteModel.train_dictionary,
    "TopK": recorders.TopK,
    **{name: getattr(experiments, name) for name in experiments.EXPERIMENTS},
}

OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL | doctest.REPORT_ONLY_FIRST_FAILURE


def tried(docstring: str, name: str, names: dict[str, Any]) -> tuple[int, str]:
    """(how many lines there were, what was wrong; "" where nothing was)."""
    test = doctest.DocTestParser().get_doctest(docstring, names, name, None, None)
    said: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append)
    return len(test.examples), "".join(said)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_an_example_shows_what_it_says(name: str, smollm2_served: garcon.RemoteModel) -> None:
    rooms = {"experiments": experiments, "recorders": recorders}
    names = {"__name__": "__main__", "garcon": garcon, "torch": torch, **rooms}
    docstring = inspect.getdoc(WITH_EXAMPLES[name]) or ""
    lines, wrong = tried(docstring, name, {**names, "rmodel": smollm2_served})
    assert wrong == "" and lines >= 3


def test_a_wrong_example_is_seen() -> None:
    lines, wrong = tried(">>> 1 + 1\n3\n", "wrong", {})
    assert lines == 1 and "Expected:\n    3\nGot:\n    2" in wrong
    assert tried(">>> [][1]\nTraceback (most recent call last):\nKeyError: ...\n", "wrong", {})[1]


def undocumented(kinds: Iterable[type], room: str) -> list[str]:
    """Public methods and properties of classes without a docstring, of their own or of what they override."""
    found = []
    for kind in kinds:
        fields = getattr(kind, "__dataclass_fields__", {})
        for name, value in vars(kind).items():
            if name in fields:  # described among the attributes of the class
                continue
            wrapped = getattr(value, "__func__", value)
            described = inspect.isfunction(wrapped) or isinstance(value, property)
            said = any(getattr(vars(base).get(name), "__doc__", None) for base in kind.__mro__)
            if described and not name.startswith("_") and not said:
                found.append(f"{room}.{kind.__name__}.{name}")
    return found


FAMILIAR = {
    "get",
    "post",
    "delete",
    "forward",
    "backward",
    "initialize",
    "prepare",
    "filter",
    "name",
    "of_a_function",
}
"""Methods that tornado, torch, traitlets and logging call, which describe them; and an attribute with its words beside it."""


@pytest.mark.parametrize("package", [garcon, garcon_backend], ids=lambda package: package.__name__)
def test_every_public_method_is_described(package: types.ModuleType) -> None:
    found = []
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if info.name.rpartition(".")[2] in ("__main__", "launch", "slurm_node"):
            continue
        module = importlib.import_module(info.name)
        kinds = [kind for kind in vars(module).values() if inspect.isclass(kind)]
        own = [kind for kind in kinds if kind.__module__ == info.name and kind.__name__[0] != "_"]
        found += undocumented(own, info.name)
    assert [name for name in found if name.rpartition(".")[2] not in FAMILIAR] == []


def test_a_method_without_a_docstring_is_seen_and_an_overriding_one_inherits() -> None:
    class Base:
        def said(self) -> None:
            """Said."""

        def unsaid(self) -> None: ...

    class Derived(Base):
        def said(self) -> None: ...

    assert undocumented([Base, Derived], "here") == ["here.Base.unsaid"]
