"""Tasks as elements of job arrays of Slurm. A task is a file, its answer another, in a directory that all nodes share.

The directory is beside the servers' connection files, in ``GARCON_RUNTIME`` where that is set. An element that ends without an answer (its node was
lost, its time or memory was over) is submitted again.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from string import Template
from typing import Any
from uuid import uuid4

from garcon_jupyter.errors import LaunchFailed
from garcon_jupyter.exchanges.announcing import jobs_directory
from garcon_jupyter.exchanges.engines.protocol import in_vain

ARRAY = 1000
"""Elements of an array at most; Slurm's own limit is 1,001 where nobody changed it."""

_TICK = 0.2
_BETWEEN_QUESTIONS = 3.0
"""Seconds between two looks at the queue, which is one for all users."""

_GONE = 600.0
"""Seconds for which Slurm may be too busy to say what is in its queue, before it counts as gone."""

_SCRIPT = Template(
    """\
#!/bin/bash
#SBATCH --job-name=garcon-tasks
#SBATCH --ntasks=1
#SBATCH --no-requeue
#SBATCH --output=$directory/%a.log
#SBATCH --open-mode=append
export PYTHONPATH=$path
exec $python -c 'from garcon_jupyter.exchanges.engines.slurm_engine import run; run()' $directory
"""
)


class SlurmEngine:
    """Tasks in jobs of Slurm.

    Args:
        workers: elements at a time.
        address: options of ``sbatch``, as one writes them: ``slurm:--partition=short --time=60``.
    """

    def __init__(self, workers: int, address: str | None = None) -> None:
        if shutil.which("sbatch") is None:
            raise LaunchFailed("There is no sbatch here.", "Use a host that has Slurm's commands.")
        self.workers, self._options = max(1, workers), shlex.split(address or "")
        self._directory = jobs_directory() / f"slurm-{uuid4().hex}"
        self._job = ""
        self._heard = 0.0

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], retries: int
    ) -> Iterator[Any]:
        """What the function returns of each item, in any order."""
        for first in range(0, len(items), ARRAY):
            yield from self._array(function, items[first : first + ARRAY], retries)

    def _array(
        self, function: Callable[[Any], Any], items: Sequence[Any], retries: int
    ) -> Iterator[Any]:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(mode=0o700)
        script = _SCRIPT.substitute(
            directory=shlex.quote(str(self._directory)),
            path=shlex.quote(os.pathsep.join(p for p in sys.path if p)),
            python=shlex.quote(sys.executable),
        )
        (self._directory / "tasks.sh").write_text(script)
        for number, item in enumerate(items):
            (self._directory / f"{number}.task").write_bytes(pickle.dumps((function, item)))
        left, tries = set(range(len(items))), dict.fromkeys(range(len(items)), 0)
        while left:
            self._submit(sorted(left))
            for number, answer in self._answers(left):
                if answer[0] == "done":
                    left.discard(number)
                    yield answer[1]
                elif in_vain(answer[1]) or tries[number] >= retries:
                    raise answer[1]
            for number in left:  # that failed, or of which nothing was heard
                tries[number] += 1
                if tries[number] > retries:
                    raise LaunchFailed(
                        f"Element {number} of job {self._job} of Slurm ended without an answer, {tries[number]} times.",
                        f"Its output is in {self._directory}; does it have the time and the memory that it needs?",
                    )
        shutil.rmtree(self._directory, ignore_errors=True)

    def _submit(self, numbers: Sequence[int]) -> None:
        which = ",".join(map(str, numbers))
        if list(numbers) == list(range(len(numbers))):
            which = f"0-{len(numbers) - 1}"
        told = _ask(
            "sbatch",
            "--parsable",
            *self._options,
            f"--array={which}%{self.workers}",
            str(self._directory / "tasks.sh"),
        )
        self._job = told.split(";")[0]
        self._heard = time.monotonic()

    def _answers(self, left: set[int]) -> Iterator[tuple[int, Any]]:
        """(number, answer) of each element that has one, until the array is over."""
        waiting, over = set(left), False
        look = time.monotonic() + _BETWEEN_QUESTIONS
        while waiting:
            found = [n for n in waiting if (self._directory / f"{n}.answer").exists()]
            for number in found:
                path = self._directory / f"{number}.answer"
                answer = pickle.loads(path.read_bytes())
                path.unlink()
                waiting.discard(number)
                yield number, answer
            if over:
                return
            if not found:
                time.sleep(_TICK)
            if time.monotonic() > look:
                over = self._over()  # its answers are looked at once more
                look = time.monotonic() + _BETWEEN_QUESTIONS

    def _over(self) -> bool:
        try:
            told = _ask("squeue", "--noheader", f"--jobs={self._job}", "--format=%T").strip()
        except LaunchFailed as error:
            if "Invalid job id" in error.problem:
                return True
            if time.monotonic() - self._heard > _GONE:
                raise LaunchFailed(
                    f"Slurm is gone: for {_GONE:.0f} s squeue has not said how job {self._job} is. {error.problem}",
                    "Give the same call again when it is back: what was done stays.",
                ) from None
            return False  # Slurm is busy; the next look will tell
        self._heard = time.monotonic()
        return not told

    def close(self) -> None:
        """End what is under way."""
        if self._job and self._directory.exists():
            with contextlib.suppress(LaunchFailed):
                _ask("scancel", self._job)
        shutil.rmtree(self._directory, ignore_errors=True)


def run() -> None:
    """Run the task of this element of an array; its directory is the first argument."""
    directory, number = Path(sys.argv[1]), os.environ["SLURM_ARRAY_TASK_ID"]
    function, item = pickle.loads((directory / f"{number}.task").read_bytes())
    try:
        answer = ("done", function(item))
    except BaseException as error:  # noqa: BLE001 - whoever gave the task is told
        answer = ("failed", error)
    temporary = directory / f"{number}.answer.writing"
    temporary.write_bytes(_pickled(answer))
    temporary.replace(directory / f"{number}.answer")


def _pickled(answer: tuple[str, Any]) -> bytes:
    try:
        content = pickle.dumps(answer)
        pickle.loads(content)
    except Exception:  # noqa: BLE001 - errors can be pickled, or not, in many ways
        return pickle.dumps(("failed", RuntimeError(f"{type(answer[1]).__name__}: {answer[1]}")))
    return content


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchFailed(
            f"{command[0]} does not run here: {error}.", "Use a host that has Slurm's commands."
        ) from error
    if done.returncode:
        raise LaunchFailed(
            f"{command[0]} says: {done.stderr.strip() or done.returncode}.", "See its manual page."
        )
    return done.stdout.strip()
