"""How many cores of this host have nothing else to do at this moment.

A pass over a few tokens is a thousand small steps, and where torch has several threads they meet after each. On a host that is
busy with other things a thread waits for a core each time, and its companions for it: SmolLM2's check at launch took 15 s on two
busy cores, 0.6 s with one thread there, and 0.3 s with two on a quiet host.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

STATISTICS = Path("/proc/stat")
"""Where Linux tells how many threads run or wait for a core: ``procs_running``, of the whole host (proc(5))."""


@contextmanager
def threads_of_idle_cores() -> Iterator[None]:
    """While this lasts, torch works with as many of its threads as there were idle cores when it began; one at least."""
    threads = torch.get_num_threads()
    torch.set_num_threads(min(threads, idle_cores()))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def idle_cores() -> int:
    """Cores that this process may use and on which nothing runs but it, itself included; one where that cannot be told."""
    try:
        told = re.search(r"^procs_running (\d+)$", STATISTICS.read_text(), re.MULTILINE)
        cores = len(os.sched_getaffinity(0))
    except (OSError, AttributeError):  # another system than Linux
        return 1
    return max(1, cores - int(told[1]) + 1) if told else 1
