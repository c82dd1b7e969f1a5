"""A few kills at chosen moments; ``make kills`` does it at random ones, as often as one likes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.servers import control, registry
from tests.conftest import quiet
from tests.kills import LARGE, OUT, Hammer
from tests.network import ROOT
from tests.oracle import Plain


@pytest.mark.parametrize("degrees", [{"tp": 2}, {"pp": 2}], ids=str)
def test_what_was_saved_is_there_or_named(
    llama_path: Path, plain: Plain, degrees: dict[str, int]
) -> None:
    server = garcon.launch(llama_path, "killed", progress=quiet, **degrees)
    try:
        hammer = Hammer(server, plain)
        for kind in hammer.kinds:
            kind()
        hammer.small()
        hammer.grow()
        hammer.after(0, rank=1)  # at once, where nothing but the answer was waited for
        assert hammer.seen["kept"] > 8
        assert hammer.seen["named"] <= 1  # the large one, had it not been written
        for kind in (hammer.small, hammer.grow, hammer.shards, hammer.grow):
            kind()
        hammer.amid(rank=0)
        assert hammer.expected[OUT]  # nothing of it was lost
        if degrees == {"tp": 2}:
            hammer.large()
            hammer.after(2, rank=0)
            assert hammer.expected["layers.3.resid_post"]["large"].numel() == LARGE
    finally:
        control.kill(registry.find("killed"))


def test_processes_that_are_killed_at_any_moment(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.backend.killed", str(tmp_path), "50"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = dict(line.split(": ") for line in done.stdout.splitlines())
    assert int(told["kept"]) > 100
    assert int(told["named"]) > 5
