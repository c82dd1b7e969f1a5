"""The other side: worker processes, and the environment in which the peers are installed.

The peers come from PyPI into an environment of their own, which borrows torch and transformers from ours:
so both sides run the very same ones, and installing takes seconds.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Side

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"
PEERS = ("nnsight==0.8.1", "transformer-lens==4.3.0", "ipyparallel==9.2.0", "opacus==1.6.0")
SAELENS = ("sae-lens==6.54.12",)
"""It wants another TransformerLens, and so an environment of its own."""

THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

PARTING = 10.0
"""Seconds in which a worker ends by itself."""


class NoPeer(Exception):
    """A worker failed; the message is its traceback."""


def python_of_peers(packages: tuple[str, ...] = PEERS, name: str = "peers") -> Path:
    """The interpreter that has the peers; made where it is not there yet.

    Args:
        packages: with their releases.
        name: of their environment.
    """
    environment = BUILD / name
    python, ready = environment / "bin" / "python", environment / ".ready"
    if ready.exists() and ready.read_text() == "\n".join(packages):
        return python
    print(f"Installing {', '.join(packages)} …", flush=True)
    venv.create(environment, clear=True, with_pip=False)
    lib = next((environment / "lib").glob("python*/site-packages"))
    (lib / "ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    import transformers

    pins = [f"torch=={torch.__version__.partition('+')[0]}"]
    pins.append(f"transformers=={transformers.__version__}")
    command = [str(python), "-m", "pip", "install", "--quiet", *packages, *pins]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoPeer(f"The peers could not be installed:\n{done.stderr[-2000:]}")
    ready.write_text("\n".join(packages))
    return python


class Worker:
    """A process that does jobs of ``workers/NAME.py``."""

    def __init__(self, name: str, python: Path | str = sys.executable) -> None:
        env = {**os.environ, "BENCH_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1"}
        env.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            [str(python), str(HERE / "workers" / f"{name}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
        )

    def do(self, job: str, *arguments: Any) -> tuple[float, Any]:
        """(seconds, result) of a job.

        Raises:
            NoPeer: it failed; with its traceback.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            pickle.dump((job, arguments), self._process.stdin, protocol=5)
            self._process.stdin.flush()
            state, took, result = pickle.load(self._process.stdout)
        except (EOFError, OSError) as error:
            raise NoPeer("The worker ended without an answer.") from error
        if state != "ok":
            raise NoPeer(str(took))
        return took, result

    def side(self, job: str, *arguments: Any) -> Side:
        """A side of a comparison: the job on the input of the round, given as an array."""
        return lambda value: self.do(
            job, value.numpy() if isinstance(value, torch.Tensor) else value, *arguments
        )

    def close(self) -> None:
        """End the process, which may have processes of its own to end."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(PARTING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
