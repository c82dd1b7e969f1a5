"""Servers as jobs of Slurm.

``garcon launch PATH --launcher slurm`` writes a batch script into the server's directory, submits it and
waits for the connection file. The job runs :mod:`garcon_jupyter.servers.slurm_node` once on each of its nodes.

The registry directory must be on a file system that all nodes and this host share (a home directory is).
There the job's directory (0700) holds the secret of the ranks (0600), made for this one job.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from garcon_jupyter.errors import LaunchFailed
from garcon_jupyter.servers.options import Several

_TICK = 0.5
_BETWEEN_QUESTIONS = 3.0
"""Seconds between two looks at the queue, which is one for all users."""

END_TIME = 120.0
"""Seconds in which Slurm ends a job; it gives a job's processes some for themselves."""

_ENDINGS = "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED TIMEOUT"
_OVER = frozenset(["", *_ENDINGS.split()])

_SCRIPT = Template(
    """\
#!/bin/bash
$options
# Ports above 20000 by the job's number: two jobs that share a node do not meet.
export GARCON_PORT=$$((20000 + SLURM_JOB_ID % 20000))
exec srun --kill-on-bad-exit=1 $python -m garcon_jupyter.servers.slurm_node $directory
"""
)


def directory(registry: Path, name: str) -> Path:
    """Of the job of a server."""
    return registry / f"{name}.slurm"


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
    """State of a job, in Slurm's word, and why it waits; ("", "") once Slurm has forgotten it.

    Raises:
        LaunchFailed: Slurm does not answer.
    """
    try:
        told = _ask("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T %r")
    except LaunchFailed as error:
        if "Invalid job id" in error.problem:
            return "", ""
        raise
    word, _, reason = told.partition(" ")
    return word, reason


def over(job: str) -> bool:
    """Whether a job has ended. Where Slurm does not answer, nothing is known and the answer is no."""
    try:
        return state(job)[0] in _OVER
    except LaunchFailed:
        return False


def cancel(job: str) -> None:
    """End a job, however it hangs.

    Raises:
        LaunchFailed: Slurm does not answer, or does not end it.
    """
    latest = time.monotonic() + END_TIME
    while state(job)[0] not in _OVER:
        with contextlib.suppress(LaunchFailed):  # it may end at this moment
            _ask("scancel", job)
        if time.monotonic() > latest:
            raise LaunchFailed(f"Slurm does not end job {job}.", "Ask who administers it.")
        time.sleep(_TICK)


class JobWatch:
    """A look at a job from time to time, while somebody waits for its server.

    Attributes:
        told: what was last to be seen.
    """

    def __init__(self, job: str) -> None:
        self.job = job
        self.told = ""
        self._next = 0.0

    def look(self) -> tuple[bool, str]:
        """Whether the job goes on, and a line about it where there is news."""
        if time.monotonic() < self._next:
            return True, ""
        self._next = time.monotonic() + _BETWEEN_QUESTIONS
        try:
            word, reason = state(self.job)
        except LaunchFailed:
            return True, ""  # Slurm is busy; the next look will tell
        line = f"job {self.job} is {word.lower()}" + (f" ({reason})" if word == "PENDING" else "")
        news = line if line != self.told and word else ""
        self.told = line
        return word not in _OVER, news


def _ask(*command: str, environment: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchFailed(
            f"{command[0]} does not run here: {error}.",
            "Use a host that has Slurm's commands.",
        ) from error
    if done.returncode:
        raise LaunchFailed(
            f"{command[0]} says: {done.stderr.strip() or done.returncode}.", "See its manual page."
        )
    return done.stdout.strip()
