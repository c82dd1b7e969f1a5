"""Servers as jobs of Slurm.

``garcon launch PATH --launcher slurm`` writes a batch script into the server's directory, submits it and
waits for the connection file. The job runs this module once on each of its nodes
(``srun python -m garcon_jupyter.slurm DIRECTORY``); each finds its place among the nodes in Slurm's own
variables and becomes a supervisor.

The registry directory must be on a file system that all nodes and this host share (a home directory is).
There the job's directory (0700) holds the secret of the ranks (0600), made for this one job.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from garcon_jupyter.errors import BadRequest, LaunchFailed
from garcon_jupyter.hosts import Place, Several

_TICK = 0.2
_BETWEEN_QUESTIONS = 3.0
"""Seconds between two looks at the queue, which is one for all users."""

_OVER = {
    "",
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
}
_OVER |= {"PREEMPTED", "TIMEOUT"}

_SCRIPT = Template(
    """\
#!/bin/bash
$options
# Ports above 20000 by the job's number: two jobs that share a node do not meet.
export GARCON_PORT=$$((20000 + SLURM_JOB_ID % 20000))
exec srun --kill-on-bad-exit=1 $python -m garcon_jupyter.slurm $directory
"""
)


def directory(registry: Path, name: str) -> Path:
    """Of the job of a server."""
    return registry / f"{name}.slurm"


# -- from the host that submits ------------------------------------------------------------------


def script(name: str, log: Path, where: Path, words: Several) -> str:
    """The batch script of a server."""
    options = [
        f"--job-name=garcon-{name}",
        f"--nodes={words.get('nodes') or 1}",
        "--ntasks-per-node=1",
        f"--output={log}",
        "--open-mode=append",
        "--no-requeue",
    ]
    for word in ("partition", "gpus_per_node", "time"):
        if value := words.get(word):
            options.append(f"--{word.replace('_', '-')}={value}")
    options += words.get("sbatch") or ()
    return _SCRIPT.substitute(
        options="\n".join(f"#SBATCH {option}" for option in options),
        python=shlex.quote(sys.executable),
        directory=shlex.quote(str(where)),
    )


def submit(
    name: str, spec: Mapping[str, Any], log: Path, words: Several, environment: Mapping[str, str]
) -> tuple[str, Path]:
    """Submit a server's job; its number, and its directory.

    Args:
        spec: the launch settings that are the same on every node.

    Raises:
        LaunchFailed: Slurm does not take it, and why.
    """
    where = directory(Path(spec["registry"]), name)
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(mode=0o700)
    secret = where / "secret"
    secret.touch(0o600)
    secret.write_text(secrets.token_hex(32))
    (where / "job.json").write_text(json.dumps(spec, indent=1))
    batch = where / "job.sh"
    batch.write_text(script(name, log, where, words))
    try:
        job = _ask("sbatch", "--parsable", str(batch), environment=environment)
    except LaunchFailed:
        shutil.rmtree(where)
        raise
    return job.split(";")[0], where


def state(job: str) -> tuple[str, str]:
    """State of a job, in Slurm's word, and why it waits; ("", "") once Slurm has forgotten it."""
    try:
        told = _ask("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T %r")
    except LaunchFailed:
        return "", ""
    word, _, reason = told.partition(" ")
    return word, reason


def over(job: str) -> bool:
    """Whether a job has ended. Where Slurm cannot be asked, nothing is known and the answer is no."""
    return shutil.which("squeue") is not None and state(job)[0] in _OVER


def cancel(job: str) -> None:
    """End a job, however it hangs."""
    with contextlib.suppress(LaunchFailed):
        _ask("scancel", job)
    while not over(job):
        time.sleep(_TICK)


class Watch:
    """A look at a job from time to time, while somebody waits for its server."""

    def __init__(self, job: str) -> None:
        self.job = job
        self._next = 0.0
        self._told = ""

    def look(self) -> tuple[bool, str]:
        """Whether the job goes on, and a line about it where there is news."""
        if time.monotonic() < self._next:
            return True, ""
        self._next = time.monotonic() + _BETWEEN_QUESTIONS
        word, reason = state(self.job)
        line = f"job {self.job} is {word.lower()}" + (f" ({reason})" if word == "PENDING" else "")
        news = line if line != self._told and word else ""
        self._told = line
        return word not in _OVER, news


def _ask(*command: str, environment: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchFailed(
            f"{command[0]} does not run here: {error}.",
            "Launch from a host where Slurm's commands are.",
        ) from error
    if done.returncode:
        raise LaunchFailed(
            f"{command[0]} says: {done.stderr.strip() or done.returncode}.", "See its manual page."
        )
    return done.stdout.strip()


# -- on each node of the job ---------------------------------------------------------------------


def place(where: Path, spec: Mapping[str, Any], environment: Mapping[str, str]) -> Place:
    """A node's place among those of its job.

    The first node is the one on which the batch script, and so srun, runs; Slurm tells the others its
    address.
    """
    from garcon_jupyter.hosts import address_towards, ranks_per_node

    nodes, mine = int(environment["SLURM_NNODES"]), int(environment["SLURM_NODEID"])
    first, port = environment["SLURM_LAUNCH_NODE_IPADDR"], int(environment["GARCON_PORT"])
    return Place(
        nodes,
        ranks_per_node(nodes, spec["nproc_per_node"], spec["degrees"]),
        f"{first}:{port}",
        mine == 0,
        mine,
        first if mine == 0 else address_towards(first, port),
        str(where / "secret"),
    )


def main(arguments: Sequence[str]) -> None:
    """Become the supervisor of this node."""
    if "SLURM_NODEID" not in os.environ:
        raise BadRequest("This is no node of a job of Slurm.", "garcon launch submits the job.")
    from garcon_jupyter.wire.transport import shared_memory_root

    where = Path(arguments[0])
    spec = json.loads((where / "job.json").read_text())
    here = place(where, spec, os.environ)
    job = os.environ["SLURM_JOB_ID"]
    own = where if here.first else where / f"node{here.node_rank}"
    shared = shared_memory_root() / f"garcon-{os.getuid()}-job{job}-{here.node_rank}"
    for path in (own, shared):
        path.mkdir(mode=0o700, exist_ok=True)
    del spec["nproc_per_node"]
    spec.update(directory=str(own), shared=str(shared), hosts=here.as_dict(), slurm_job=job)
    file = own / "spec.json"
    file.write_text(json.dumps(spec, indent=1))
    supervisor = [sys.executable, "-m", "garcon_backend.engine.supervisor", str(file)]
    os.execv(sys.executable, supervisor)


if __name__ == "__main__":
    main(sys.argv[1:])
