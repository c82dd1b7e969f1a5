"""Launching and connecting: names, sessions, and what a second call finds."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.serving import notebook_session
from garcon_jupyter.snapshots import server_name
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
