"""What a process has around it from its start, and what two must have in common before one may be forked for the other.

A *preloaded* process (:mod:`garcon_backend.supervision.preloaded`) has read environment and packages when it started. A
server may be forked from it only where one that starts afresh would have found the same.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

COLD = "GARCON_COLD_START"
"""Environment variable: where it is set, every process starts by its command and imports for itself."""

HEAP = "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0"
"""How the GNU C library keeps the memory of ranks: all threads share one heap, and none keeps pieces for itself.

By default it opens another heap when memory ends in the first, and tries those of other threads: one request that
asks for too much would leave all of them as large as they once were, and take what ZMQ's own threads have left,
which end the process where they get nothing. And a few bytes at the end of a heap, kept by a thread that may want
them again, would keep it from becoming small.
"""

SPINS = "20000"
"""How often an idle thread of a pass looks for work before it sleeps: for a millisecond, which bridges what Python
does between two operations. A core that it spins on is one that the notebook, or another server, does not have.
(Sleeping at once made a pass of SmolLM2 slower by a twentieth, and OpenMP's own habit of spinning for long made
requests 20 times slower on a busy machine.)"""

_OF_THE_STARTER = re.compile(
    "_|PWD|OLDPWD|SHLVL|COLUMNS|LINES|TERM.*|COLORTERM|CLICOLOR.*|WINDOWID|DISPLAY|WAYLAND_DISPLAY|PS1|PAGER|GIT_PAGER"
    "|MPLBACKEND|SSH_.*|VSCODE_.*|JUPYTER.*|JPY_.*|PYDEVD_.*|PYTEST_.*|XDG_SESSION_.*|XDG_VTNR|XDG_SEAT"
    "|TORCHINDUCTOR_CACHE_DIR"  # which torch sets by itself, in whichever process imports its compiler
)
"""Variables of whoever starts a process: terminal, notebook, test. None is read while packages are imported."""


def at_start(given: Mapping[str, str]) -> dict[str, str]:
    """An environment, with what Python and the C library read when a process of a server starts, and never again."""
    tunables = given.get("GLIBC_TUNABLES", "")
    if HEAP not in tunables:
        tunables = f"{HEAP}:{tunables}" if tunables else HEAP
    own = {"PYTHONHASHSEED": "0", "GLIBC_TUNABLES": tunables}
    return {"GOMP_SPINCOUNT": SPINS, **given, **own}


def surroundings(environment: Mapping[str, str]) -> dict[str, object]:
    """What must be equal, as JSON has it.

    Args:
        environment: of the process that is to start.
    """
    relevant = {k: v for k, v in environment.items() if not _OF_THE_STARTER.fullmatch(k)}
    spaces = Path("/proc/self/ns")
    return {
        "python": [sys.executable, sys.version],
        "environment": relevant,
        "user": [os.getuid(), os.getgid(), *sorted(os.getgroups())],
        "umask": re.findall(r"^Umask:.*$", Path("/proc/self/status").read_text(), re.MULTILINE),
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "cores": sorted(os.sched_getaffinity(0)),
        "limits": {name: list(resource.getrlimit(getattr(resource, name))) for name in _limits()},
        "group": Path("/proc/self/cgroup").read_text(),
        "spaces": [str(space.readlink()) for space in sorted(spaces.iterdir())],
    }


def _limits() -> list[str]:
    return sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))
