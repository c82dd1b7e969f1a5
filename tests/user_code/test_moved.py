"""Modules by their former names: the same classes, and a warning that says where they are now."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.user_code.moved import MOVED

OURS = [name for name in MOVED if name.startswith("garcon_jupyter")]


@pytest.mark.parametrize("name", OURS)
def test_what_a_module_held_is_found(name: str) -> None:
    present = import_module(MOVED[name])
    sys.modules.pop(name, None)
    with pytest.warns(FutureWarning, match=f"{name} is now {MOVED[name]}") as said:
        former = import_module(name)
    assert said[0].filename == import_module.__code__.co_filename
    for word in vars(present):
        if not word.startswith("__"):
            assert getattr(former, word) is getattr(present, word)
    assert former.__doc__ == present.__doc__


def test_a_class_stays_one_class() -> None:
    sys.modules.pop("garcon_jupyter.tokens", None)
    with pytest.warns(FutureWarning, match="client.tokens") as said:
        from garcon_jupyter.tokens import Tokens  # type: ignore[import-not-found]
    assert said[0].filename == __file__  # the line that is to be changed
    assert Tokens is garcon.Tokens


def test_a_name_that_none_had_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="garcon_jupyter.tokken"):
        import_module("garcon_jupyter.tokken")
    with pytest.warns(FutureWarning):
        sys.modules.pop("garcon_jupyter.tokens", None)
        former = import_module("garcon_jupyter.tokens")
    with pytest.raises(AttributeError, match="Tokken"):
        former.Tokken  # noqa: B018


@pytest.mark.processes
def test_in_a_fresh_process() -> None:
    """Also for one that never touched the package before."""
    script = "from garcon_jupyter.tokens import Tokens; print(Tokens.__module__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "garcon_jupyter.client.tokens\n"
    assert "<string>:1: FutureWarning" in done.stderr
