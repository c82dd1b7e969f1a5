"""A notebook and a server whose disk and shared memory are full: ``python tests/on_full_disks.py MODEL``.

Both are small file systems of this process's own namespace; TMPDIR is the disk.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import garcon_jupyter as garcon
from garcon_jupyter.servers import control
from garcon_jupyter.servers.server import own_directory
from tests.oracle import PROMPT, Plain, close

DISK, SHARED = Path(os.environ["TMPDIR"]), Path("/dev/shm")
SMALL = 64 << 20
"""Bytes that neither of them may have: a mistake here must not fill the machine's own disk."""

OUT = "layers.2.mlp.out"
LONG = [list(range(100))] * 40
"""Their logits are 4 MiB."""


def keep(save_ctx: Any, tensor: torch.Tensor) -> None:
    save_ctx.tensor = tensor


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Not a byte more goes onto a disk, while this lasts."""
    filler = disk / "filler"
    assert shutil.disk_usage(disk).total < SMALL
    with filler.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(min(1 << 16, max(1, shutil.disk_usage(disk).free))))
            except OSError:
                break
    assert shutil.disk_usage(disk).free == 0
    try:
        yield
    finally:
        filler.unlink()


def refused(model: garcon.RemoteModel) -> str:
    try:
        model.forward(LONG)
    except garcon.DoesNotFit as error:
        return str(error)
    raise AssertionError("it fitted")


def main(path: str) -> None:
    plain = Plain(path)
    server = garcon.launch(path, "full", progress=lambda line: None)
    model = garcon.connect("full")
    pid = model.facts["pid"]
    # Torch's own store would be a file, to which the launcher adds a record every second; half of one that a
    # full disk cut off is waited for without end.
    assert not (own_directory("full") / "rendezvous").exists()
    probe = model.probe_points[OUT].probe(keep)

    with full(SHARED):
        print("shared memory:", refused(model))
        assert close(model.forward(PROMPT, probes=[probe]), plain.logits(PROMPT))
    assert close(model.forward(LONG), plain.logits(LONG))

    with full(DISK):
        assert close(model.forward(PROMPT, probes=[probe]), plain.logits(PROMPT))
        assert close(model.recordings()[OUT].tensor, plain.output("model.layers.2.mlp", PROMPT))
        other = garcon.connect("full", session="other")
        assert close(other.forward(PROMPT), plain.logits(PROMPT))
        other.close()

    assert close(model.forward(PROMPT, probes=[probe]), plain.logits(PROMPT))
    assert model.status()["ranks"][0]["pid"] == pid
    print("goes on")
    os.kill(pid, signal.SIGKILL)  # its launcher was there all the time
    try:
        model.forward(PROMPT)
    except garcon.ServerRestarted as error:
        print(error)
    assert close(model.forward(PROMPT, probes=[probe]), plain.logits(PROMPT))
    control.kill(server)


if __name__ == "__main__":
    main(*sys.argv[1:])
