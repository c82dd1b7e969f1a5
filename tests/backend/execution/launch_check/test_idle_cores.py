"""With how many threads a few tokens are read: with those of cores that have nothing else to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from garcon_backend.execution.launch_check import idle_cores as subject
from garcon_backend.execution.launch_check.idle_cores import idle_cores, threads_of_idle_cores


@pytest.mark.parametrize(("running", "idle"), [(1, 4), (2, 3), (4, 1), (9, 1)])
def test_what_runs_elsewhere_is_left_its_cores(
    running: int, idle: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics = tmp_path / "stat"
    statistics.write_text(f"cpu  1 2 3\nprocs_running {running}\nprocs_blocked 0\n")
    monkeypatch.setattr(subject, "STATISTICS", statistics)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
    assert idle_cores() == idle


@pytest.mark.parametrize("text", [None, "cpu  1 2 3\n"])
def test_where_it_cannot_be_told_there_is_one(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "stat").write_text(text)
    monkeypatch.setattr(subject, "STATISTICS", tmp_path / "stat")
    assert idle_cores() == 1


def test_threads_are_as_they_were_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "idle_cores", lambda: 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(KeyError), threads_of_idle_cores():
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


@pytest.mark.processes
def test_a_process_that_runs_takes_a_core() -> None:
    """On a real host: as many that run as there are cores leave one to whoever asks."""
    cores = len(os.sched_getaffinity(0))
    code = "print(flush=True)\nwhile True: pass"
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(cores)
    ]
    try:
        for one in running:
            assert one.stdout is not None
            one.stdout.readline()
        assert idle_cores() == 1
    finally:
        for one in running:
            one.kill()
            one.communicate()
