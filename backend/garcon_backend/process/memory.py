"""Memory: how much there is, a limit that leaves the machine alive, and errors with numbers.

Without a limit, what asks for too much is not refused: Linux promises memory that it does not have, and kills
whoever uses it. So each rank is given a limit (``RLIMIT_DATA``) when its model is loaded: its part of what is
free then. From there on a request that asks for more gets an error, at the line that asks; the server goes on.
All threads of a rank share one heap, which becomes small again (see ``supervision/agent.py``).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import gc
import os
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import GarconError, OutOfMemory

T = TypeVar("T")

SHARE = 0.85
"""What part of the memory that is free at launch the ranks of a host may use."""

SLACK = 64 << 20
"""Bytes by which this process may grow before free memory of the heap is given back to the system."""

RAISED = 0.5
"""By what part of itself the limit is raised at most, for memory that the heap holds and nobody uses."""

PATIENCE = 2.0
"""Seconds for which a question waits for memory that a request took."""

_CGROUP = Path("/sys/fs/cgroup")
_CANNOT = ("can't allocate memory", "Cannot allocate memory", "not enough memory")
_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_ASKED = re.compile(r"tried to allocate ([\d.]+) (bytes|KiB|MiB|GiB|TiB)", re.IGNORECASE)


def sharers(device: torch.device | str) -> int:
    """How many ranks of this host share the memory of a device: all that of the host, each its own GPU."""
    on_host = torch.device(device).type == "cpu"
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if on_host else 1


def available_bytes(device: torch.device | str) -> int:
    """Memory that can be used now on a device, in bytes; on the CPU all its processes share it."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    lines = (line.split() for line in meminfo.read_text().splitlines())
    free = next(int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:")
    limit, used = _number(_CGROUP / "memory.max"), _number(_CGROUP / "memory.current")
    if limit is None or used is None:
        return free
    cached = re.search(r"^inactive_file (\d+)", (_CGROUP / "memory.stat").read_text(), re.MULTILINE)
    return min(free, limit - used + (int(cached[1]) if cached else 0))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such limit, or "max"
        return None


def limit(count: int | None = None) -> int | None:
    """Limit the host memory that this rank may use beyond what it uses now.

    Args:
        count: bytes, for all ranks of this host together; None for most of what is free now.

    Returns:
        The bytes of this rank; None where the system knows no such limit.
    """
    global _limit, _raised
    used = _data_bytes()
    if used is None:
        return None
    mine = int(available_bytes("cpu") * SHARE if count is None else count) // sharers("cpu")
    _limit, _raised = used + mine, int(mine * RAISED)
    _set(_limit)
    return mine


_limit: int | None = None
"""What :func:`limit` set; None before."""

_raised = 0
"""By how much it is raised at most."""


def _set(count: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


@contextmanager
def beyond_the_limit(count: int) -> Iterator[None]:
    """While this lasts, the limit is so many bytes higher: for what no request has asked for, such as other weights."""
    global _limit
    former = _limit
    if former is not None:
        _limit = former + count
        _set(_allowed())
    try:
        yield
    finally:
        _limit = former
        if former is not None:
            _set(max(_allowed(), _data_bytes() or 0))


def recover() -> None:
    """Make room again after memory ended."""
    gc.collect()
    if (heap := _heap()) is not None:
        heap.malloc_trim(0)
    adjust()


def adjust() -> None:
    """Make the heap small again where little is left, and raise the limit by what it holds all the same.

    Without it nothing would be left in time for what does not come from the heap: large tensors, and the stacks of
    threads. What the heap holds can be used as well, so the limit is raised by a part of itself at most.
    """
    if _limit is None:
        return
    if (heap := _heap()) is not None and _limit - (_data_bytes() or 0) < _raised:
        heap.malloc_trim(0)
    _set(_allowed())


def _allowed() -> int:
    """The limit as it is now.

    A heap that stays large all the same leaves room for as much as was raised, so that the server goes on.
    """
    assert _limit is not None
    used, unused = _data_bytes() or 0, _unused()
    left = max(0, _limit - used + unused)
    return max(min(_limit + _raised, _limit + unused), used + min(left, _raised))


def _unused() -> int:
    """Bytes that count towards the limit, though they were given back: the heap of the C library has them."""
    heap = _heap()
    return heap.free if heap else 0


def give_back() -> None:
    """Give free memory of the heap back to the system, where that may be much; between two requests.

    Large values that come and go leave holes in the heap, which the C library keeps: without this a server that
    is asked for megabytes again and again holds hundreds of them. It takes milliseconds for gigabytes.
    """
    global _former
    if (heap := _heap()) is not None and resident() > _former + SLACK:
        heap.malloc_trim(0)
        _former = resident()


_former = 0
"""Bytes that this process held when free memory was given back last."""


def resident() -> int:
    """Bytes of memory of this process's own, without files and shared memory; 0 where nobody says."""
    file = Path("/proc/self/statm")
    if not file.exists():
        return 0
    _, resident, shared, *_ = file.read_bytes().split()
    return (int(resident) - int(shared)) * resource.getpagesize()


class _Heap:
    """The heap of the GNU C library."""

    class _Counts(ctypes.Structure):
        _fields_ = tuple(
            (name, ctypes.c_size_t)
            for name in (
                *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
                *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
            )
        )

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self.malloc_trim, self._count = library.malloc_trim, library.mallinfo2
        self._count.restype = self._Counts

    @property
    def free(self) -> int:
        """Bytes that it holds and nobody uses."""
        return int(self._count().fordblks)


@functools.cache
def _heap() -> _Heap | None:
    try:
        return _Heap()
    except (AttributeError, OSError):  # another C library
        return None


def _data_bytes() -> int | None:
    """Memory of its own that this process has asked for, as its limit counts it."""
    if not sys.platform.startswith("linux"):
        return None
    words = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(words[1]) * 1024 if words else None


def left(device: torch.device | str = "cpu") -> int:
    """Memory that this rank can still use on a device, in bytes."""
    device = torch.device(device)
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return available_bytes(device) + cached
    there = available_bytes(device) // sharers(device)
    if _limit is not None and (used := _data_bytes()) is not None:
        there = min(there, _allowed() - used)
    return max(0, there)


def patiently(question: Callable[[], T]) -> T:
    """Ask something small, and again for a moment where memory ended: whose request took all of it is about to fail.

    Raises:
        MemoryError: memory did not come back.
    """
    last = time.monotonic() + PATIENCE
    while True:
        try:
            return question()
        except MemoryError:
            if time.monotonic() > last:
                raise
            time.sleep(0.01)


# -- errors --------------------------------------------------------------------------------------


def ended(error: BaseException) -> bool:
    """Whether an error says that memory ended, on the host or on a device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CANNOT)


def typed(error: BaseException, device: torch.device | str = "cpu") -> BaseException:
    """An error that says that memory ended as one of ours, with the numbers; others as they are.

    What the failed code held is let go of, so that the next request has it.
    """
    if isinstance(error, GarconError) or not ended(error):
        return error
    traceback.clear_frames(error.__traceback__)
    recover()
    on_device = isinstance(error, torch.OutOfMemoryError)
    asked = _ASKED.search(str(error))
    needed = f"{sized(_count(asked))} more were asked for" if asked else "more was asked for"
    where = torch.device(device) if on_device else torch.device("cpu")
    if on_device:
        torch.cuda.empty_cache()
    place = str(where) if on_device else "the host"
    ours = OutOfMemory(
        f"Memory of {place} ended: {needed}; {sized(left(where))} are left for this rank.",
        "Take a smaller batch, keep less, or clear recordings; the server goes on.",
    )
    return ours.with_traceback(error.__traceback__)


def _count(found: re.Match[str]) -> float:
    unit = next(u for u in _UNITS if u.lower() == found[2].lower())
    return float(found[1]) * _UNITS[unit]
