"""Launching and connecting: names, sessions, and what a second call finds."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter.api import notebook_session
from garcon_jupyter.model_files.snapshots import server_name
from tests.conftest import quiet


def sessions(rmodel: garcon.RemoteModel) -> list[str]:
    return [client["session"] for client in rmodel.status()["clients"]]


def test_the_notebooks_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/alice/my study.ipynb")
    assert notebook_session() == "alice@/home/alice/my-study.ipynb"
    monkeypatch.delenv("JPY_SESSION_NAME")
    assert notebook_session() is None


def test_a_second_call_reconnects_and_goes_on_holding_the_session(
    monkeypatch: pytest.MonkeyPatch, llama_path: Path, llama_server: garcon.Server
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "twice.ipynb")
    told: list[str] = []
    rmodel = garcon.launch_and_connect(llama_path, name="tiny", progress=told.append)
    name = rmodel.session
    assert told == ["connected to the running server tiny"] and not rmodel.resumed
    # The same line again: the former connection goes only when the new one is there.
    rmodel = garcon.launch_and_connect(llama_path, name="tiny", progress=quiet)
    gc.collect()
    assert rmodel.session == name and rmodel.resumed
    assert name in sessions(rmodel)
    other = garcon.connect("tiny")
    rmodel.close()
    assert name not in sessions(other)
    other.close()


def test_the_automatic_name_and_the_settings_are_checked(
    llama_path: Path, llama_server: garcon.Server
) -> None:
    assert server_name(llama_path).startswith("llama")
    with pytest.raises(garcon.ServerMismatch, match="runs with tp=1"):
        garcon.launch(llama_path, name="tiny", tp=2, progress=quiet)
    with pytest.raises(garcon.ServerMismatch, match="runs with dtype=float32"):
        garcon.launch(llama_path, name="tiny", dtype="bfloat16", progress=quiet)
    assert garcon.launch(llama_path, name="tiny", dtype="float32", progress=quiet) == llama_server


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(garcon.UnknownServer, match="no running server 'nobody'"):
        garcon.connect("nobody")


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing": (lambda: garcon.connect(), "None is no name of a server"),
    "a number": (lambda: garcon.connect(5), "5 is no name of a server"),  # type: ignore[arg-type]
    "an empty name": (lambda: garcon.connect(""), "'' is no name of a server"),
    "a session": (lambda: garcon.connect("tiny", session=5), "5 is no name of a session"),  # type: ignore[arg-type]
    "no session": (lambda: garcon.connect("tiny", session=""), "'' is no name of a session"),
    "sessions": (lambda: garcon.sessions(5), "5 is no name of a server"),  # type: ignore[arg-type]
    "a path": (lambda: garcon.launch(5), "5 is no path of a model"),  # type: ignore[arg-type]
    "a server": (lambda: garcon.launch(garcon.servers()[0]), "is no path of a model"),  # type: ignore[arg-type]
    "a text": (lambda: garcon.easy_garcon(5, "hi"), "5 is no path of a model"),  # type: ignore[arg-type]
    "a name": (lambda: garcon.launch("smollm2", 5), "name=5 is no text"),  # type: ignore[arg-type]
    "a degree": (lambda: garcon.launch("smollm2", tp="2"), "tp='2' is no degree"),  # type: ignore[arg-type]
    "half a degree": (lambda: garcon.launch("smollm2", pp=1.5), "pp=1.5 is no degree"),  # type: ignore[arg-type]
    "a word": (lambda: garcon.launch("smollm2", memry="8GiB"), "'memry'. Did you mean memory"),  # type: ignore[call-arg]
    "a device": (
        lambda: garcon.launch("smollm2", device="gpu"),
        "no device 'gpu'. Use cpu or cuda",
    ),
    "a loader": (lambda: garcon.launch("smollm2", loader=len), "package.module:function"),  # type: ignore[arg-type]
    "a time": (lambda: garcon.launch("smollm2", idle_timeout=None), "None is no duration"),  # type: ignore[arg-type]
    "a negative time": (lambda: garcon.launch("smollm2", idle_timeout=-1), "-1 is no duration"),
    "no time": (lambda: garcon.launch("smollm2", idle_timeout=float("nan")), "nan is no duration"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_call_gets_a_sentence(what: str, llama_server: garcon.Server) -> None:
    call, said = WRONG[what]
    with pytest.raises(garcon.GarconError, match=re.escape(said)):
        call()


def test_a_server_and_dtypes_are_taken_as_they_are(
    llama_path: Path, llama_server: garcon.Server
) -> None:
    rmodel = garcon.connect(llama_server)
    assert rmodel.server == llama_server
    rmodel.close()
    same = garcon.launch(llama_path, "tiny", dtype=torch.float32, progress=quiet)  # type: ignore[arg-type]
    assert same == llama_server


@pytest.mark.parametrize(
    ("loader", "said"),
    [
        ("mine.py:load", "Write mine:load, with the directory of mine.py"),
        ("models/mine.py:load", "Write mine:load"),
        ("mine", "Write package.module:function"),
        ("mine:two words", "names no loader"),
    ],
)
def test_a_loader_that_is_no_name_is_refused_before_anything_starts(loader: str, said: str) -> None:
    with pytest.raises(garcon.BadRequest, match=said):
        garcon.launch("anywhere", loader=loader, progress=quiet)
