"""The check at launch, as a person meets it: in the figures of a launch, in what a server says of itself, in a refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.display import listings
from garcon_jupyter.servers.registry import servers
from tests import checkpoints
from tests.backend import every_architecture
from tests.behaviour.test_losses import kill_idle
from tests.behaviour.test_servers import until
from tests.conftest import quiet


def test_a_launch_tells_what_the_check_took_and_came_to(tmp_path: Path) -> None:
    lines: list[str] = []
    path = checkpoints.make("llama", tmp_path)
    server = garcon.launch(path, name="checked", progress=lines.append)
    try:
        (told,) = [line for line in lines if line.startswith("equal to its own implementation")]
        assert told.endswith(" s") and lines.index(told) < lines.index("checked is ready")
        rmodel = garcon.connect("checked")
        assert told in listings.status(server, rmodel.status())
        assert "unchecked" not in repr(rmodel) + repr(server) + listings.servers(servers())
        assert garcon.launch(path, name="checked", unchecked=True, progress=quiet) == server
    finally:
        garcon.connect("checked").shutdown(force=True)


def test_ranks_that_are_started_anew_know_what_the_check_came_to(tmp_path: Path) -> None:
    path = checkpoints.make("llama", tmp_path)
    server = garcon.launch(path, name="again", tp=2, progress=quiet)
    try:
        before = garcon.connect("again").facts["model"]["check"]
        kill_idle(server, 1)
        until(lambda: server.alive and server.file.exists())
        after = garcon.connect("again").facts["model"]["check"]
        assert (
            after == before and after["outcome"] == "equal"
        )  # with its seconds, to the last digit
    finally:
        garcon.connect("again").shutdown(force=True)


def test_an_unchecked_server_says_so_wherever_it_is_named(tmp_path: Path) -> None:
    path = checkpoints.make("llama", tmp_path)
    server = garcon.launch(path, name="trusted", unchecked=True, progress=quiet)
    try:
        rmodel = garcon.connect("trusted")
        assert "unchecked" in repr(rmodel) and "unchecked" in repr(server)
        assert "unchecked" in listings.servers(servers())
        assert "unchecked" in listings.status(server, rmodel.status())
        with pytest.raises(garcon.ServerMismatch, match="unchecked=True"):
            garcon.launch(path, name="trusted", progress=quiet)
    finally:
        rmodel.shutdown(force=True)


def test_a_refusal_is_the_reason_of_the_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(every_architecture.SPECIAL, "xmod", {})
    path = every_architecture.make("xmod", tmp_path)
    with pytest.raises(
        garcon.NotAModel, match="XmodForCausalLM does not read tokens alone"
    ) as told:
        garcon.launch(path, name="refused", progress=quiet)
    assert "Input language unknown" in str(told.value)
    assert "refused" not in {server.name for server in servers()}
