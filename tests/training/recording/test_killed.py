"""A process that records is killed in the middle of a step, and another goes on from the trainer's checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from garcon_jupyter import training

pytestmark = pytest.mark.processes

PROGRAM = """
import sys
import torch
from pathlib import Path
from garcon_jupyter import training

folder, end, stop = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Embedding(30, 8), torch.nn.Linear(8, 12), torch.nn.ReLU(), torch.nn.Linear(12, 30))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
saved = folder / "checkpoint.pt"
start = 0
if saved.exists():
    start, weights, state = torch.load(saved)
    model.load_state_dict(weights)
    optimizer.load_state_dict(state)
with training.record(model, folder / "record", k=50, chunk=4, step=start or None, units=["*weight"]) as record:
    for step in range(start, end):
        if step % 3 == 0 and step:
            torch.save((step, model.state_dict(), optimizer.state_dict()), saved)
        ids = torch.randint(0, 30, (5, 7), generator=torch.Generator().manual_seed(step))
        loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        record.data(range(5 * step, 5 * step + 5))
        if step == stop:
            record._writer.files.append("norms.f4", b"a part of what a step writes")
            print("here", flush=True)
            input()
        optimizer.step()
        optimizer.zero_grad()
"""


def run(folder: Path, end: int, stop: int = -1) -> None:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", PROGRAM, str(folder), str(end), str(stop)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if stop >= 0:
            assert process.stdout is not None and process.stdout.readline() == b"here\n"
            os.kill(process.pid, signal.SIGKILL)
        assert process.wait(timeout=120) == (-signal.SIGKILL if stop >= 0 else 0)


def test_what_goes_on_after_kill_9_writes_what_was_never_killed(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole, 10)
    run(killed, 10, stop=8)
    assert [*training.open_record(killed / "record").steps] == [*range(8)]
    run(killed, 10)  # from the checkpoint before step 6: in the middle of a chunk
    ours, theirs = (
        {f.relative_to(p): f.read_bytes() for f in p.rglob("*") if f.is_file()}
        for p in (whole / "record", killed / "record")
    )
    assert ours == theirs
