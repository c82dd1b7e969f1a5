"""A fleet of three living servers: the same to all, and each failure in its place."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter.cli import app
from garcon_jupyter.connection.connection_file import process_lives
from garcon_jupyter.servers import control, fleet_files, registry
from garcon_jupyter.servers.first_process import SUPERVISOR
from garcon_jupyter.servers.server import own_directory
from tests.behaviour.test_servers import processes, until
from tests.conftest import quiet
from tests.fleets import atlases
from tests.oracle import PROMPT, Plain, close

pytestmark = pytest.mark.processes

OUT = "layers.2.mlp.out"


@pytest.fixture(scope="module")
def fleet(series: dict[str, Path]) -> Iterator[garcon.Fleet]:
    made = garcon.fleet(series, name="toy", jobs=2, progress=quiet)
    yield made
    for server in registry.servers():
        if server.name.startswith("toy."):
            control.kill(server)


def save(save_ctx: Any, tensor: Any) -> None:
    save_ctx.tensor = tensor


def alone(model: garcon.RemoteModel) -> torch.Tensor:
    """The logits of a single run, on a connection of its own."""
    single = garcon.connect(model.server.name)
    try:
        return single.forward(PROMPT)
    finally:
        single.close()


def names(fleet: str) -> list[str]:
    found = fleet_files.read(fleet)
    assert found
    return list(found.members.values())


def test_map_is_the_single_runs(fleet: garcon.Fleet, series: dict[str, Path]) -> None:
    found = fleet.map(lambda model: model.forward(PROMPT))
    assert list(found) == list(series) == list(fleet) and len(fleet) == 3
    for label, path in series.items():
        assert torch.equal(found[label], alone(fleet[label]))
        assert close(found[label], Plain(path).logits(PROMPT))


def test_the_same_weights_under_two_labels_differ_by_nothing(fleet: garcon.Fleet) -> None:
    found = fleet.forward("The capital of France is")
    assert torch.equal(found["step0"], found["again"])
    assert not close(found["step0"], found["step 1"])


def test_members_take_part_at_once(fleet: garcon.Fleet) -> None:
    meeting = threading.Barrier(3, timeout=20)
    assert sorted(fleet.map(lambda model: meeting.wait()).values()) == [0, 1, 2]


def test_members_share_the_cores(fleet: garcon.Fleet) -> None:
    told = fleet.map(
        lambda model: model.forward(PROMPT, logits=lambda logits: torch.get_num_threads())
    )
    assert set(told.values()) == {max(1, (os.cpu_count() or 1) // 3)}


def test_what_was_saved_is_stacked_by_member(fleet: garcon.Fleet, series: dict[str, Path]) -> None:
    points = fleet["step0"].probe_points
    fleet.forward(
        PROMPT, (points[f"layers.{i}.mlp.out"].probe(save) for i in range(4)), logits="none"
    )
    stacked = fleet.stack(OUT)
    for row, path in zip(stacked, series.values(), strict=True):
        assert close(row, Plain(path).output("model.layers.2.mlp", PROMPT))
    assert torch.equal(fleet.stack("layers.*.mlp.out")[:, 2], stacked)
    assert torch.equal(fleet.recordings()["again"][OUT].tensor, stacked[2])
    with pytest.raises(garcon.NoRecording):
        fleet.stack("layers.0.attn.z")


def test_randomness_in_probes_is_the_same_for_all(fleet: garcon.Fleet) -> None:
    def draw(save_ctx: Any, tensor: Any) -> None:
        save_ctx.tensor = torch.rand(3)

    probe = fleet["step0"].probe_points[OUT].probe(draw)
    fleet.forward(PROMPT, [probe], logits="none")
    first = fleet.stack(OUT)
    assert torch.equal(first[0], first[1]) and torch.equal(first[0], first[2])
    fleet.forward(PROMPT, [probe], logits="none")
    assert not torch.equal(fleet.stack(OUT), first)


def test_a_run_over_the_same_data(fleet: garcon.Fleet, tmp_path: Path) -> None:
    def gather(save_ctx: Any, tensor: Any) -> None:
        save_ctx.total = getattr(save_ctx, "total", 0) + tensor.sum((0, 1))

    probe = fleet["step0"].probe_points[OUT].probe(gather)
    texts = (f"text {n}" for n in range(20))
    runs = fleet.run(texts, [probe], batch_tokens=64, checkpoint=tmp_path)
    assert [run.status.state for run in runs.values()] == ["done"] * 3, runs
    totals = fleet.stack(OUT, "total")
    assert torch.equal(totals[0], totals[2]) and not close(totals[0], totals[1])
    assert {each.name for each in tmp_path.iterdir()} == {"toy.step0", "toy.step-1", "toy.again"}


def test_an_atlas_of_each_is_its_own(
    fleet: garcon.Fleet, series: dict[str, Path], tmp_path: Path
) -> None:
    """From texts that can be read but once, in a directory for each."""
    where = tmp_path / "of" / "all"
    made = fleet.atlas(atlases.POINTS, iter(atlases.TEXTS), where, **atlases.OPTIONS)
    assert list(made) == list(series)
    assert {each.name for each in where.iterdir()} == {"step0", "step-1", "again"}
    own = {label: tmp_path / f"own {label}" for label in ("step0", "step 1")}
    for label, place in own.items():
        single = garcon.connect(fleet[label].server.name)
        atlases.made_by(single, place)
        single.close()
        assert atlases.differences(made[label].path, place) == [], label
        assert made[label].index["model"] == str(series[label])
    assert atlases.differences(made["again"].path, own["step0"]) == []
    assert "top_values.npy" in atlases.differences(made["step0"].path, own["step 1"])


def test_an_atlas_that_cannot_be_made_stands_in_its_place(
    fleet: garcon.Fleet, tmp_path: Path
) -> None:
    (tmp_path / "step-1").write_text("a file, and no directory")
    made = fleet.atlas(atlases.POINTS, atlases.TEXTS, tmp_path, **atlases.OPTIONS)
    assert isinstance(made["step 1"], garcon.BadData)
    assert isinstance(made["step0"], garcon.Atlas) and isinstance(made["again"], garcon.Atlas)
    with pytest.raises(garcon.UnknownPoint):  # of all, and once
        fleet.atlas("layers.*.mlp.past_activation", atlases.TEXTS, tmp_path / "none")


def test_wrong_requests_are_raised_once(fleet: garcon.Fleet) -> None:
    with pytest.raises(garcon.BadTokens):
        fleet.forward([[10**6]])
    with pytest.raises(garcon.BadRequest, match="no logits 'some'"):
        fleet.forward(PROMPT, logits="some")
    with pytest.raises(garcon.UnknownName, match="Did you mean step0"):
        fleet["step00"]
    with pytest.raises(garcon.BadRequest, match="on_error='ignore'"):
        fleet.map(len, on_error="ignore")  # type: ignore[arg-type]


def spinning(places: dict[str, Path]) -> Callable[[garcon.RemoteModel], Any]:
    """A request that says on disk that it runs, and never ends; of members that have no place, one that ends."""

    def asked(model: garcon.RemoteModel) -> Any:
        place = places.get(model.server.name)
        if place is None:
            return model.forward(PROMPT)

        def spin(save_ctx: Any, tensor: Any) -> None:
            import time
            from pathlib import Path

            Path(str(place)).touch()
            while True:
                time.sleep(0.01)

        return model.forward(PROMPT, [model.probe_points[OUT].probe(spin)])

    return asked


def when(condition: Callable[[], Any], act: Callable[[], Any]) -> threading.Thread:
    """A thread that acts when something is so."""

    def waits() -> None:
        until(condition)
        act()

    thread = threading.Thread(target=waits)
    thread.start()
    return thread


def test_an_interrupt_stops_all_and_leaves_each_usable(fleet: garcon.Fleet, tmp_path: Path) -> None:
    before = fleet.forward(PROMPT)
    places = {fleet[label].server.name: tmp_path / label for label in fleet}
    pressed = when(
        lambda: all(place.exists() for place in places.values()),
        lambda: os.kill(os.getpid(), signal.SIGINT),
    )
    with pytest.raises(garcon.Interrupted, match="3 members"):
        fleet.map(spinning(places))
    pressed.join()
    after = fleet.forward(PROMPT)
    assert all(torch.equal(before[label], after[label]) for label in fleet)


def test_an_interrupt_cancels_the_runs(fleet: garcon.Fleet, tmp_path: Path) -> None:
    def told(save_ctx: Any, tensor: Any) -> None:
        from pathlib import Path

        Path(str(tmp_path), str(os.getpid())).touch()

    probe = fleet["step0"].probe_points[OUT].probe(told)
    pressed = when(
        lambda: len(list(tmp_path.iterdir())) == 3, lambda: os.kill(os.getpid(), signal.SIGINT)
    )
    rows = torch.ones(4000, 16, dtype=torch.int64)
    with pytest.raises(garcon.Interrupted, match="3 members"):
        fleet.run(rows, [probe], batch_tokens=64)
    pressed.join()
    for label in fleet:
        assert "cancelled" in {run.status.state for run in fleet[label].runs()}
        assert "running" not in {run.status.state for run in fleet[label].runs()}


def test_a_member_that_is_another_stands_in_its_place_as_an_error(
    fleet: garcon.Fleet, series: dict[str, Path]
) -> None:
    exchanged = {"step0": series["step 1"], "again": series["again"]}
    some = garcon.fleet(exchanged, "toy", progress=quiet)
    assert isinstance(some.errors["step0"], garcon.ServerMismatch) and "ServerMismatch" in repr(
        some
    )
    found = some.forward(PROMPT)
    assert found["step0"] is some.errors["step0"] and found["again"].shape[:2] == (2, 6)
    with pytest.raises(garcon.BadRequest, match="step0 did not come up"):
        some.stack(OUT)
    with pytest.raises(garcon.ServerMismatch):
        some["step0"]
    with pytest.raises(garcon.ServerMismatch):
        garcon.fleet(exchanged, "toy", on_error="raise", progress=quiet)
    with pytest.raises(garcon.ServerMismatch):
        garcon.fleet({"step0": series["step 1"]}, "toy", progress=quiet)
    some.close()
    left = fleet_files.read("toy")
    assert left and set(left.members) == set(series)  # who stops the fleet stops those, too


def test_one_killed_midway_leaves_the_others_and_the_same_line_brings_it_back(
    fleet: garcon.Fleet, series: dict[str, Path], tmp_path: Path
) -> None:
    before = fleet.forward(PROMPT)
    victim = fleet["step 1"].server
    place = tmp_path / "runs"
    killed = when(place.exists, lambda: control.kill(victim))
    found = fleet.map(spinning({victim.name: place}))
    killed.join()
    assert isinstance(found["step 1"], garcon.ServerGone)
    assert torch.equal(found["step0"], before["step0"]) and torch.equal(
        found["again"], before["again"]
    )
    with pytest.raises(garcon.ServerGone) as caught:
        fleet.map(lambda model: model.forward(PROMPT), on_error="raise")
    assert caught.value.__notes__ == ["This is of member 'step 1'."]

    told: list[str] = []
    again = garcon.fleet(series, name="toy", progress=told.append)
    assert told and all(line.startswith("step 1: ") for line in told)
    after = again.forward(PROMPT)
    assert all(torch.equal(after[label], before[label]) for label in series)
    assert again["step0"].session == fleet["step0"].session
    again.close()


def test_an_interrupt_of_the_launch_ends_what_is_not_ready(series: dict[str, Path]) -> None:
    def pressing(line: str) -> None:
        if "loading" in line:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(garcon.Interrupted, match="launch of the fleet"):
        garcon.fleet(series, "toy-halted", jobs=1, progress=pressing)
    assert not any(server.name.startswith("toy-halted") for server in registry.servers())
    started = [own_directory(name) / SUPERVISOR for name in names("toy-halted")]
    pids = [int(each.read_text()) for each in started if each.exists()]
    assert len(pids) == 1  # jobs=1: the others never began
    until(lambda: not process_lives(pids[0]))


def test_it_is_listed_and_stopped_as_one(
    fleet: garcon.Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last of this file: the servers have gone."""
    members = [server for server in registry.servers() if server.name.startswith("toy.")]
    capsys.readouterr()
    assert app.main(["list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    at = next(n for n, row in enumerate(rows) if row.split()[0] == "toy")
    assert "fleet, 3 of 3 run" in rows[at]
    below = [row.split()[0] for row in rows[at + 1 : at + 4]]
    assert below == ["toy.step0", "toy.step-1", "toy.again"]
    assert all(row.startswith("  ") for row in rows[at + 1 : at + 4])

    file = registry.registry_directory() / "toy.fleet"
    assert file.stat().st_mode & 0o777 == 0o600
    assert app.main(["stop", "toy"]) == 0
    assert capsys.readouterr().out == "".join(f"{name} has ended.\n" for name in below)
    assert not any(process_lives(pid) for server in members for pid in processes(server))
    assert not file.exists() and not {"toy"} & {each.name for each in fleet_files.fleets()}
    assert app.main(["stop", "toy"]) == 1
    assert isinstance(fleet.map(alone)["step0"], garcon.UnknownServer)
