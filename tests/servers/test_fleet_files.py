"""Which servers are a fleet's, by its file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from garcon_jupyter.display import listings
from garcon_jupyter.errors import UnknownServer
from garcon_jupyter.servers import fleet_files
from garcon_jupyter.servers.fleet_files import FleetFile
from garcon_jupyter.servers.server import Server

FACTS = {
    "model": {"architecture": "LlamaForCausalLM", "dtype": "float32"},
    "degrees": {"tp": 1},
    "pid": 1,
    "path": "/models/llama",
}


def server(name: str) -> Server:
    return Server(name, Path(f"{name}.json"), FACTS)


@pytest.fixture
def written() -> Iterator[Path]:
    paths = {"step 0": Path("/models/0"), "b": Path("/models/b")}
    fleet_files.write("v1.2", {"step 0": "v1.2.step-0", "b": "v1.2.b"}, paths)
    file = fleet_files.registry_directory() / "v1.2.fleet"
    yield file
    file.unlink()


def test_it_is_read_as_it_was_written_and_private(written: Path) -> None:
    found = fleet_files.read("v1.2")
    paths = {"step 0": "/models/0", "b": "/models/b"}
    assert found == FleetFile("v1.2", {"step 0": "v1.2.step-0", "b": "v1.2.b"}, paths)
    assert found.labelled("/models/b") == "b" and found.labelled("/models/c") is None
    assert list(found.members) == ["step 0", "b"] and found in fleet_files.fleets()
    assert written.stat().st_mode & 0o777 == 0o600


def test_a_file_of_the_version_that_kept_no_paths_is_read(written: Path) -> None:
    written.write_text('{"name": "v1.2", "members": {"b": "v1.2.b"}}')
    found = fleet_files.read("v1.2")
    assert found == FleetFile("v1.2", {"b": "v1.2.b"}) and found.labelled(None) is None


def test_what_is_no_fleet(written: Path) -> None:
    assert fleet_files.read("v1") is None and fleet_files.read("../v1.2") is None
    written.write_text("{}")
    assert fleet_files.read("v1.2") is None


def test_former_members_that_have_gone_are_forgotten(written: Path) -> None:
    fleet_files.write("v1.2", {"c": "v1.2.c"}, {"c": Path("/models/c")})
    assert fleet_files.read("v1.2") == FleetFile("v1.2", {"c": "v1.2.c"}, {"c": "/models/c"})


def test_a_fleet_of_which_none_runs_cannot_be_stopped(written: Path) -> None:
    with pytest.raises(UnknownServer, match=r"no running server 'v1\.2'"):
        list(fleet_files.stopped("v1.2"))
    with pytest.raises(UnknownServer, match=r"no running fleet 'v1\.2'"):
        list(fleet_files.ended("v1.2"))


def test_members_are_listed_below_their_fleet_in_its_order() -> None:
    fleet = FleetFile("f", {"b": "f.b", "a": "f.a", "gone": "f.gone"})
    idle = FleetFile("idle", {"a": "idle.a"})
    found = [server(name) for name in ("a", "f", "f.a", "f.b", "z")]
    rows = listings.servers(found, [fleet, idle]).splitlines()[1:]
    assert [row.split("  ")[0] or row.split()[0] for row in rows] == [
        "a",
        "f",
        "f",
        "f.b",
        "f.a",
        "z",
    ]
    assert "fleet, 2 of 3 run" in rows[2]  # below the server of that name
    assert rows[3].startswith("  f.b") and rows[4].startswith("  f.a")
