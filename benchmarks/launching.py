"""From nothing to the first answer, and where the time goes; beside another revision, how starts compare."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import garcon_jupyter as garcon
from benchmarks import harness
from benchmarks.harness import Differs, Row, Times, await_rest, told
from benchmarks.servers import smollm2

ROOT = Path(__file__).resolve().parent.parent
TURN = ROOT / "benchmarks" / "workers" / "start.py"

ROUNDS = 5
"""Turns of each side; the first, which may have to compile what it imports, does not count."""

TARGETS = {"launch": 0.5, "recovery": 0.4, "second launch": 0.3}
"""What part of the other revision's time a start may take."""

CHECK = 0.1
"""What part of a launch its check may take."""

_WHAT = {
    "launch": "launch of SmolLM2 to the first answer, unchecked as before there was a check",
    "recovery": "a killed rank until the next answer",
    "second launch": "a second launch while the first server lives",
}


def rows(folder: Path) -> Iterator[Row]:
    for ranks in (1, 3):
        yield _launch(ranks)
    yield _check_at_launch()


def _launch(ranks: int, rounds: int = 2) -> Row:
    whole, stages = [], []
    for number in range(rounds):
        name = f"bench-launch-{ranks}-{number}"
        lines: list[tuple[float, str]] = []
        start = time.perf_counter()
        said = lines.append
        server = garcon.launch(
            smollm2(),
            name=name,
            tp=ranks,
            progress=lambda line, said=said: said((time.perf_counter(), line)),  # type: ignore[misc]
        )
        ready = time.perf_counter()
        model = garcon.connect(server.name)
        connected = time.perf_counter()
        model.forward("The capital of France is", logits="last", probes=[])
        answered = time.perf_counter()
        model.shutdown(force=True)
        whole.append(answered - start)
        stages.append((ready - start, connected - ready, answered - connected))
    launched, connected, answered = stages[-1]
    return Row(
        f"launch of SmolLM2 to the first answer, {_ranks(ranks)}",
        f"{Times(tuple(whole))}: {told(launched)} until the server is ready (processes, imports, "
        f"weights), {told(connected)} to connect, {told(answered)} for the first answer",
    )


def _check_at_launch(rounds: int = 5) -> Row:
    """What the check costs until the first answer, whose weights it has already brought into memory."""

    def side(unchecked: bool | None) -> harness.Side:
        def launched(number: int) -> tuple[float, Any]:
            start = time.perf_counter()
            garcon.launch(smollm2(), name="bench-check", unchecked=unchecked, progress=_unheard)
            model = garcon.connect("bench-check")
            answer = model.forward("The capital of France is", logits="last", probes=[])
            taken = time.perf_counter() - start
            model.shutdown(force=True)
            return taken, answer

        return launched

    numbers = itertools.count()
    times = harness.interleaved(
        {"checked": side(None), "unchecked": side(True)}, lambda: next(numbers), rounds, warm=1
    )
    ratio = times["checked"].median / times["unchecked"].median
    allowed = 1 / (1 - CHECK)
    return Row(
        "launch of SmolLM2 to the first answer, held against its own implementation before",
        f"{times['checked']}, unchecked {times['unchecked']}: {1 - 1 / ratio:.0%} of it is the check",
        f"≤ {CHECK:.0%}",
        ratio <= allowed,
        ratio / allowed,
    )


def _unheard(line: str) -> None:
    pass


def _ranks(count: int) -> str:
    return f"{count} rank{'s' if count > 1 else ''}"


# -- beside another revision ---------------------------------------------------------------------


def against(revision: str, folder: Path) -> Iterator[Row]:
    """Starts of this check-out and of another revision, which take turns, each in a process of its own.

    Args:
        revision: as git names it.
        folder: for its check-out.
    """
    path = smollm2()
    with _checked_out(revision, folder / "before") as before:
        for ranks in (1, 3):
            sides: dict[Path, list[dict[str, float]]] = {before: [], ROOT: []}
            for number in range(1 + min(ROUNDS, harness.most_rounds)):
                logits = []
                for side, taken in sides.items():
                    await_rest()
                    turn = _turn(side, folder, path, ranks)
                    logits.append(turn["logits"])
                    print(f"  {side.name}: {turn['taken']}", file=sys.stderr, flush=True)
                    if number:
                        taken.append(turn["taken"])
                if logits[0] != logits[1]:
                    raise Differs(f"The logits are {logits[0]} and {logits[1]}.")
            for what in sides[ROOT][0]:
                yield _compared(what, ranks, *([t[what] for t in side] for side in sides.values()))


def _turn(side: Path, folder: Path, path: Path, ranks: int) -> dict[str, dict[str, float]]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{side}{os.pathsep}{side / 'backend'}",
        "GARCON_RUNTIME": str(folder / f"runtime-{side.name}"),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, str(TURN), str(path), str(ranks)]
    with subprocess.Popen(
        command, cwd=side, env=environment, stdout=subprocess.PIPE, text=True
    ) as turn:
        try:
            told, _ = turn.communicate()
        except BaseException:
            turn.terminate()  # it ends its servers
            raise
    if turn.returncode:
        raise subprocess.CalledProcessError(turn.returncode, command)
    return json.loads(told.splitlines()[-1])


def _compared(what: str, ranks: int, before: list[float], now: list[float]) -> Row:
    ratio = median(now) / median(before)
    target = TARGETS[what]
    return Row(
        f"{_WHAT[what]}, {_ranks(ranks)}",
        f"{Times(tuple(now))}, before {Times(tuple(before))}: {ratio:.2f} of it",
        f"≤ {target}",
        ratio <= target,
        ratio / target,
    )


@contextmanager
def _checked_out(revision: str, where: Path) -> Iterator[Path]:
    """A work tree of a revision."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(where), revision], check=True)
    try:
        yield where
    finally:
        subprocess.run([*git, "remove", "--force", str(where)], check=True)
