"""A server as a job of Slurm, over two of its nodes.

These tests run where Slurm answers ``sbatch`` and has two nodes; ``tests/slurm/setup.sh`` makes that of one
Debian machine. Elsewhere they are skipped: installing a scheduler is no business of a test.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.errors import LaunchFailed, ServerGone
from garcon_jupyter.servers import control, slurm
from garcon_jupyter.servers.server import why_gone
from tests.conftest import RUNTIME, quiet
from tests.oracle import PROMPT, Plain, close

NAME = "job"


def _nodes() -> int:
    if not shutil.which("sbatch"):
        return 0
    asking = ["sinfo", "--noheader", "--format=%D", "--states=idle,mixed"]
    try:
        told = subprocess.run(asking, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return 0
    return sum(int(line) for line in told.stdout.split())


pytestmark = pytest.mark.skipif(
    _nodes() < 2, reason="no Slurm with two nodes answers; tests/slurm/setup.sh sets one up"
)


def launch(path: Path, **more: Any) -> garcon.Server:
    words = {"tp": 2, "launcher": "slurm", "nodes": 2, "time": "10", "progress": quiet, **more}
    return garcon.launch(path, name=NAME, **words)


def soon_over(job: str) -> bool:
    end = time.monotonic() + 60
    while not slurm.over(job) and time.monotonic() < end:
        time.sleep(0.1)
    return slurm.over(job)


@pytest.fixture
def server(llama_path: Path) -> Iterator[garcon.Server]:
    server = launch(llama_path)
    yield server
    if not slurm.over(server.facts["slurm_job"]):
        control.kill(server)


def test_a_job_serves_and_ends_with_its_server(
    server: garcon.Server, llama_path: Path, plain: Plain
) -> None:
    job = server.facts["slurm_job"]
    assert slurm.state(job)[0] == "RUNNING"
    assert launch(llama_path).facts == server.facts  # finds the running one
    model = garcon.connect(NAME)
    assert close(model.forward(PROMPT), plain.logits(PROMPT))
    assert [rank["tp_rank"] for rank in model.status()["ranks"]] == [0, 1]
    model.shutdown()
    assert soon_over(job)
    assert slurm.state(job)[0] == "COMPLETED"
    assert not slurm.directory(RUNTIME, NAME).exists()  # and with it the secret
    assert why_gone(NAME).startswith("shut down by")


def test_a_job_that_slurm_ends_says_so(server: garcon.Server) -> None:
    model = garcon.connect(NAME)
    subprocess.run(["scancel", server.facts["slurm_job"]], check=True)
    assert soon_over(server.facts["slurm_job"])
    with pytest.raises(ServerGone, match="SIGTERM"):
        model.forward(PROMPT)
    assert NAME not in [server.name for server in garcon.servers()]


def test_a_server_that_hangs_is_ended_with_its_job(server: garcon.Server) -> None:
    job = server.facts["slurm_job"]
    subprocess.run(["kill", "-STOP", str(server.facts["pid"])], check=True)
    control.kill(server)
    assert slurm.over(job)
    assert NAME not in [server.name for server in garcon.servers()]


def test_what_slurm_refuses_is_told(llama_path: Path) -> None:
    with pytest.raises(LaunchFailed, match="invalid partition"):
        launch(llama_path, partition="nowhere")
    assert not slurm.directory(RUNTIME, NAME).exists()


def test_a_launch_that_fails_on_a_node_says_why(llama_path: Path, tmp_path: Path) -> None:
    config = json.loads((llama_path / "config.json").read_text())
    broken = shutil.copytree(llama_path, tmp_path / "broken")
    (broken / "config.json").write_text(json.dumps({**config, "num_attention_heads": 3}))
    with pytest.raises(garcon.BadDegrees, match="3"):
        launch(broken)
