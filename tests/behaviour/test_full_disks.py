"""A disk and a shared memory that are really full: small file systems, in a mount namespace of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.network import ROOT

MOUNT = """
mount -t tmpfs -o size=8m,mode=700 none "$TMPDIR" || exit 77
mount -t tmpfs -o size=8m none /dev/shm || exit 77
exec "$@"
"""

REFUSED = 77


def test_what_is_full_costs_a_request(llama_path: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("the kernel refuses mount namespaces")
    script = [sys.executable, "tests/on_full_disks.py", str(llama_path)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", MOUNT, "sh", *script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "TMPDIR": str(disk),
            "GARCON_RUNTIME": str(disk / "runtime"),
            "PYTHONPATH": ".",
        },
        timeout=120,
        check=False,
    )
    if done.returncode == REFUSED:
        pytest.skip("the kernel refuses to mount here")
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.splitlines()
    assert told[0].startswith("shared memory: The logits need 4.0 MiB of shared memory")
    assert told[1] == "goes on"
    assert len(told) == 2 or "starts anew" in told[2]
