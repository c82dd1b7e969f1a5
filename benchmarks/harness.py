"""Measuring two or more ways to do the same, side by side.

Machines are noisy, so only ratios of one run count. The ways take turns, A B A B, on the same fresh input;
each says how long its own work took; and what they put out is compared before a time counts. Told is the
median, with the range that the middle 80 % of the rounds span. Before each turn the machine comes to rest:
OpenMP's threads spin for a while after their work, and those of one side would do it in the time of the next.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Side = Callable[[Any], tuple[float, Any]]
"""``side(input) -> (seconds, what came out)``"""


BUDGET = 60.0
"""Seconds after which a comparison makes do with the rounds that it has."""

UNREST = 0.1
"""Seconds after which a turn begins although something else runs."""

RUNNING = Path("/proc/loadavg")
"""Where Linux says how many threads could run; elsewhere turns follow one another at once."""

FEWEST = 3
"""Rounds that it has at least."""

most_rounds = most_warm = 1 << 30
"""Rounds of a comparison at most, where somebody only wants to see that it runs."""


class Differs(Exception):
    """Two ways to do the same put out different things, so their times say nothing."""


@dataclass(frozen=True)
class Times:
    """The times of one side, in seconds, over all rounds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The tenth and the ninetieth percentile."""
        if len(self.seconds) < 3:
            return min(self.seconds), max(self.seconds)
        tenths = statistics.quantiles(self.seconds, n=10, method="inclusive")
        return tenths[0], tenths[-1]

    def __str__(self) -> str:
        low, high = self.spread
        return f"{told(self.median)} ({told(low)} – {told(high)})"


@dataclass
class Row:
    """One line of the table.

    Attributes:
        what: was measured.
        target: what is asked for; "" where it is only reported.
        measured: in words, with the baseline beside it.
        met: whether the target was met; None where there is none.
        ratio: measured over allowed, at most 1 where the target was met; None where there is none.
        curve: (label, x, y) of points of a growth curve, where the row is one.
    """

    what: str
    measured: str
    target: str = ""
    met: bool | None = None
    ratio: float | None = None
    curve: list[tuple[str, float, float]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def local(work: Callable[[Any], Any]) -> Side:
    """A side that runs in this process: the time of one call."""

    def side(value: Any) -> tuple[float, Any]:
        start = time.perf_counter()
        result = work(value)
        return time.perf_counter() - start, result

    return side


def interleaved(
    sides: Mapping[str, Side],
    fresh: Callable[[], Any],
    rounds: int,
    agree: Callable[[Mapping[str, Any]], None] = lambda results: None,
    warm: int = 2,
    seconds: float = BUDGET,
) -> dict[str, Times]:
    """The times of all sides, which take turns on the same inputs.

    Args:
        fresh: makes the input of a round; no two are alike, so that nothing cached counts.
        rounds: that count, after `warm` ones that do not.
        agree: is given what each side put out, in every round.
        seconds: after which it makes do with the rounds that it has.

    Raises:
        Differs: from `agree`.
    """
    rounds, warm = min(rounds, most_rounds), min(warm, most_warm)
    taken: dict[str, list[float]] = {name: [] for name in sides}
    end = time.monotonic() + seconds
    for number in range(warm + rounds):
        if time.monotonic() > end and number >= warm + FEWEST:
            break
        value = fresh()
        results = {}
        for name, side in sides.items():
            await_rest()
            took, results[name] = side(value)
            if number >= warm:
                taken[name].append(took)
        agree(results)
    return {name: Times(tuple(values)) for name, values in taken.items()}


def await_rest() -> None:
    """Wait until nothing runs on the machine but this thread, or for :data:`UNREST` seconds."""
    end = time.monotonic() + UNREST
    while RUNNING.exists() and time.monotonic() < end:
        runnable, _, _ = RUNNING.read_text().split()[3].partition("/")
        if int(runnable) <= 1:
            return
        time.sleep(0.0005)


def close(mine: Any, theirs: Any, what: str, tolerance: float = 1e-4) -> None:
    """Raises Differs unless two tensors are equal within `tolerance` of the largest value."""
    import torch

    a, b = torch.as_tensor(mine).float(), torch.as_tensor(theirs).float()
    if a.shape != b.shape or float((a - b).abs().max()) > tolerance * float(b.abs().max()):
        raise Differs(f"{what}: {list(a.shape)} and {list(b.shape)} are not equal")


def at_most(what: str, ratio: float, allowed: float, measured: str) -> Row:
    """The row of a ratio that should not exceed what is allowed."""
    return Row(what, measured, f"≤ {allowed:g}", ratio <= allowed, ratio / allowed)


def told(seconds: float) -> str:
    """A time in a readable unit."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.2f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"


def machine() -> str:
    """What the numbers were measured on, and how busy it was."""
    import psutil
    import torch

    model = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB; {platform.system()} "
        f"{platform.release()}; Python {platform.python_version()}, torch {torch.__version__}; "
        f"load {load:.1f} when it began"
    )


def _lines(file: str) -> Iterator[str]:
    try:
        with open(file) as lines:  # noqa: PTH123 - a file of the kernel's
            yield from lines
    except OSError:
        return
