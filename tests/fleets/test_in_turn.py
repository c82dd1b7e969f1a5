"""A fleet in turn: one server, whose weights are exchanged for those of the member that is asked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter.cli import app
from garcon_jupyter.connection.connection_file import process_lives
from garcon_jupyter.servers import control, fleet_files, registry
from tests import checkpoints
from tests.behaviour.test_servers import processes, until
from tests.conftest import quiet
from tests.fleets import atlases
from tests.fleets.test_fleet import save, spinning, when
from tests.oracle import PROMPT, Plain, close

pytestmark = pytest.mark.processes

OUT = "layers.2.mlp.out"
SERVER = "turns.in-turn"


@pytest.fixture(scope="module")
def fleet(series: dict[str, Path]) -> Iterator[garcon.Fleet]:
    """Over two tensor-parallel ranks."""
    made = garcon.fleet(series, name="turns", alive=1, tp=2, progress=quiet)
    yield made
    for server in registry.servers():
        if server.name == SERVER:
            control.kill(server)


@pytest.fixture(scope="module")
def launched(
    series: dict[str, Path], llama_tp2_server: garcon.Server
) -> Iterator[dict[str, garcon.RemoteModel]]:
    """On servers that were launched with each checkpoint, cut as the fleet's."""
    later = garcon.launch(series["step 1"], name="turns-later", tp=2, progress=quiet)
    models = {
        label: garcon.connect(server.name)
        for label, server in (("step0", llama_tp2_server), ("step 1", later))
    }
    yield models
    for model in models.values():
        model.close()
    control.kill(later)


@pytest.fixture(scope="module")
def fresh(launched: dict[str, garcon.RemoteModel]) -> dict[str, torch.Tensor]:
    """The logits of each."""
    found = {label: model.forward(PROMPT) for label, model in launched.items()}
    return {**found, "again": found["step0"]}


def test_map_is_fresh_launches_bit_by_bit(
    fleet: garcon.Fleet, series: dict[str, Path], fresh: dict[str, torch.Tensor]
) -> None:
    found = fleet.map(lambda model: model.forward(PROMPT))
    assert list(found) == list(series) == list(fleet) and fleet.in_turn
    for label, path in series.items():
        assert torch.equal(found[label], fresh[label])
        assert close(found[label], Plain(path).logits(PROMPT))
    assert not close(found["step0"], found["step 1"])
    assert {server.name for server in registry.servers() if server.name.startswith("turns.")} == {
        SERVER
    }


def test_a_member_alone_is_asked_with_its_own_weights(
    fleet: garcon.Fleet, fresh: dict[str, torch.Tensor], series: dict[str, Path]
) -> None:
    for label in ("step 1", "step0", "step 1"):
        assert torch.equal(fleet[label].forward(PROMPT), fresh[label])
        assert fleet.loaded == (label,)
        assert fleet[label].status()["weights"] == str(series[label])
    name = "layers.1.mlp.down_proj"
    stored = "model.layers.1.mlp.down_proj.weight"
    for label in ("step0", "step 1"):
        expected = Plain(series[label]).model.get_parameter(stored)
        assert torch.equal(fleet[label].get_parameter(name), expected)
        assert fleet[label].facts["path"] == str(series[label])


def test_recordings_are_kept_apart_and_need_no_exchange(
    fleet: garcon.Fleet, series: dict[str, Path]
) -> None:
    point = fleet["step0"].probe_points[OUT]
    fleet.forward(PROMPT, [point.probe(save)], logits="none")
    loaded = fleet.loaded
    stacked = fleet.stack(OUT)
    assert fleet.loaded == loaded
    for row, path in zip(stacked, series.values(), strict=True):
        assert close(row, Plain(path).output("model.layers.2.mlp", PROMPT))
    assert torch.equal(stacked[0], stacked[2])
    fleet["step 1"].clear_recordings()
    assert len(fleet["step0"].recordings()) == 1 and not len(fleet["step 1"].recordings())


def test_a_run_of_each_reads_the_same_and_no_exchange_goes_beneath_it(
    fleet: garcon.Fleet, tmp_path: Path
) -> None:
    def gather(save_ctx: Any, tensor: Any) -> None:
        save_ctx.total = getattr(save_ctx, "total", 0) + tensor.sum((0, 1))

    probe = fleet["step0"].probe_points[OUT].probe(gather)
    runs = fleet.run((f"text {n}" for n in range(20)), [probe], batch_tokens=64)
    assert [run.status.state for run in runs.values()] == ["done"] * 3, runs
    totals = fleet.stack(OUT, "total")
    assert torch.equal(totals[0], totals[2]) and not close(totals[0], totals[1])
    rows = torch.ones(4000, 16, dtype=torch.int64)
    run = fleet["step0"].run(rows, [probe], batch_tokens=64, blocking=False)
    with pytest.raises(garcon.BadRequest, match="goes on with the weights"):
        fleet["step 1"].forward(PROMPT)
    run.pause()
    until(lambda: run.poll().state == "paused")
    assert fleet["step 1"].forward(PROMPT).shape[0] == 2
    run.resume()  # its weights are loaded again
    assert fleet["step0"].status()["weights"] == str(fleet["step0"].facts["path"])
    run.cancel()
    until(lambda: run.poll().over)


def test_an_atlas_of_each_is_its_own(
    fleet: garcon.Fleet,
    launched: dict[str, garcon.RemoteModel],
    series: dict[str, Path],
    tmp_path: Path,
) -> None:
    """Output weights and all: nothing of the member that was loaded before."""
    made = fleet.atlas(atlases.POINTS, atlases.TEXTS, tmp_path / "all", **atlases.OPTIONS)
    own = {label: tmp_path / f"own {label}" for label in launched}
    for label, model in launched.items():
        atlases.made_by(model, own[label])
        assert atlases.differences(made[label].path, own[label]) == [], label
        assert made[label].index["model"] == str(series[label])
    wrong = atlases.differences(made["step0"].path, own["step 1"])
    assert {"top_values.npy", "logits_up.npy"} <= set(wrong)


def test_nobody_elses_model_changes(fleet: garcon.Fleet, series: dict[str, Path]) -> None:
    fleet["step0"].forward(PROMPT)
    other = garcon.connect(SERVER)
    before = other.forward(PROMPT)
    with pytest.raises(garcon.BadRequest, match="Other sessions are connected"):
        fleet["step 1"].forward(PROMPT)
    found = fleet.map(lambda model: model.forward(PROMPT))
    assert isinstance(found["step 1"], garcon.BadRequest)
    assert torch.equal(found["step0"], before) and torch.equal(other.forward(PROMPT), before)
    other.close()
    assert not torch.equal(fleet["step 1"].forward(PROMPT), before)


@pytest.mark.parametrize("fault", ["gone", "cut short", "other shapes", "other configuration"])
def test_what_cannot_be_loaded_changes_nothing(
    fleet: garcon.Fleet,
    series: dict[str, Path],
    fresh: dict[str, torch.Tensor],
    tmp_path: Path,
    fault: str,
) -> None:
    """What became of a member's files since the fleet was made."""
    bad = tmp_path / "later"
    shutil.copytree(series["step 1"], bad)
    some = garcon.fleet(
        {"step0": series["step0"], "bad": bad}, "turns", alive=1, tp=2, progress=quiet
    )
    assert torch.equal(some["step0"].forward(PROMPT), fresh["step0"])
    weights = bad / "model.safetensors"
    expected: type[Exception] = garcon.GarconError
    if fault == "gone":
        shutil.rmtree(bad)
    elif fault == "cut short":
        weights.write_bytes(weights.read_bytes()[:-4096])
    else:
        expected = garcon.ModelsDiffer
        wide = checkpoints.make("llama", tmp_path / "wide", intermediate_size=44)
        if fault == "other shapes":
            shutil.copy(wide / "model.safetensors", bad)
        else:
            shutil.copy(wide / "config.json", bad)
    found = some.forward(PROMPT)
    assert isinstance(found["bad"], expected), found
    assert torch.equal(found["step0"], fresh["step0"]) and some.loaded == ("step0",)
    some.close()


def test_an_interrupt_stops_all_and_leaves_each_usable(
    fleet: garcon.Fleet, fresh: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    place = tmp_path / "runs"
    pressed = when(place.exists, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(garcon.Interrupted, match="3 members"):
        fleet.map(spinning({SERVER: place}))
    pressed.join()
    found = fleet.forward(PROMPT)
    assert all(torch.equal(found[label], fresh[label]) for label in fleet)


def test_ranks_that_are_started_anew_have_the_weights_that_were_loaded(
    fleet: garcon.Fleet, fresh: dict[str, torch.Tensor]
) -> None:
    model = fleet["step 1"]
    probe = model.probe_points[OUT].probe(save)
    model.forward(PROMPT, [probe], logits="none")
    saved = model.recordings()[OUT].tensor
    victim = model.facts["ranks"][1]["pid"]
    os.kill(victim, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(victim) or not process_lives(victim))
    until(lambda: isinstance(_asked(model), torch.Tensor))
    assert fleet.loaded == ("step 1",)
    assert torch.equal(model.forward(PROMPT), fresh["step 1"])
    assert torch.equal(model.recordings()[OUT].tensor, saved)
    assert torch.equal(fleet["step0"].forward(PROMPT), fresh["step0"])


def _asked(model: garcon.RemoteModel) -> Any:
    try:
        return model.forward(PROMPT)
    except garcon.GarconError as error:
        return error


RESTARTED = """
import json, sys
import garcon_jupyter as garcon
paths = json.loads(sys.argv[1])
fleet = garcon.fleet(paths, name="turns", alive=1, tp=2, progress=lambda line: None)
point = "layers.2.mlp.out"
def save(save_ctx, tensor):
    save_ctx.tensor = tensor
if sys.argv[2] == "first":
    fleet.forward([[1, 2, 3]], [fleet["step0"].probe_points[point].probe(save)], logits="none")
    fleet["step 1"].forward([[1]])
print(json.dumps([fleet.loaded, fleet.stack(point).double().sum((1, 2, 3)).tolist()]))
"""


def test_a_restarted_notebook_finds_server_and_recordings(
    fleet: garcon.Fleet, series: dict[str, Path], tmp_path: Path
) -> None:
    import json

    fleet.close()
    script = tmp_path / "notebook.py"
    script.write_text(RESTARTED)
    paths = json.dumps({label: str(path) for label, path in series.items()})
    told = []
    for which in ("first", "second"):
        done = subprocess.run(
            [sys.executable, script, paths, which], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout.splitlines()[-1]))
    assert told[0] == told[1] and told[1][0] == ["step 1"]
    first, second, again = told[1][1]
    assert first == again != second


def test_it_is_not_held_in_two_ways(fleet: garcon.Fleet, series: dict[str, Path]) -> None:
    with pytest.raises(garcon.BadRequest, match="held in turn"):
        garcon.fleet(series, name="turns", progress=quiet)


def test_it_is_listed_and_stopped_as_one(
    fleet: garcon.Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last of this file: the server has gone."""
    (server,) = [server for server in registry.servers() if server.name == SERVER]
    pids = [*processes(server)]
    capsys.readouterr()
    assert app.main(["list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    at = next(n for n, row in enumerate(rows) if row.split()[0] == "turns")
    assert "fleet, 3 in turn" in rows[at] and rows[at + 1].split()[0] == SERVER
    fleet.close()
    assert app.main(["stop", "turns"]) == 0
    assert capsys.readouterr().out == f"{SERVER} has ended.\n"
    assert not any(process_lives(pid) for pid in pids)
    assert fleet_files.read("turns") is None
    assert isinstance(fleet.map(len)["step0"], garcon.GarconError)
