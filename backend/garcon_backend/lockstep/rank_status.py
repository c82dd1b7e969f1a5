"""Where a rank is: what the watchdog asks of each when a request takes long, or is to stop.

It is read off the main thread's stack by another thread, so it costs a running pass nothing.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from garcon_backend.process.interrupts import Interrupts

_OPERATIONS = {
    "all_gather",
    "all_gather_into_tensor",
    "all_reduce",
    "barrier",
    "broadcast",
    "recv",
    "reduce_scatter_tensor",
    "send",
    "wait",
    "wait_tensor",
}

_COORDINATOR = f"lockstep{os.sep}coordinator.py"
_OURS = (f"{os.sep}garcon_backend{os.sep}", f"{os.sep}garcon_jupyter{os.sep}")


@dataclass(frozen=True)
class RankStatus:
    """One rank, at one moment.

    Attributes:
        rank: whose.
        request: that runs; None where none does.
        entered: layers entered since it began.
        point: the probed point that it is at, or was last.
        in_user_code: whether code of the user runs.
        line: the user's line, where it does.
        waits_in: the operation between ranks in which it waits, if it does.
        failed: what went wrong on this rank alone, if something did.
    """

    rank: int
    request: str | None
    entered: int
    point: str
    in_user_code: bool
    line: str
    waits_in: str
    failed: str = ""

    @property
    def over(self) -> bool:
        """Whether this rank has done its part."""
        return self.request is None

    @property
    def stuck(self) -> bool:
        """Whether it can go on only if others do."""
        return self.over or bool(self.waits_in)

    def __str__(self) -> str:
        if self.over:
            return f"rank {self.rank} {f'failed: {self.failed}' if self.failed else 'is done'}"
        doing = f"waits in {self.waits_in}" if self.waits_in else "computes"
        if self.in_user_code:
            doing = f"runs {self.line or 'code of the user'}" + (
                f", which {doing}" if self.waits_in else ""
            )
        at = f" at {self.point}" if self.point else ""
        return f"rank {self.rank} {doing}{at} (layer {self.entered} of the pass)"

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def rank_status(rank: int, interrupts: Interrupts, failed: str = "") -> RankStatus:
    """Where this process's main thread is."""
    request = interrupts.request
    frames = _frames(sys._current_frames().get(threading.main_thread().ident or 0))
    user = interrupts.in_user_code
    return RankStatus(
        rank,
        request,
        interrupts.stop.entered,
        interrupts.point,
        user,
        _user_line(frames) if user else "",
        _operation(frames),
        failed if request is None else "",
    )


def _frames(frame: FrameType | None) -> list[FrameType]:
    """Innermost first."""
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def _user_line(frames: list[FrameType]) -> str:
    """The innermost line that is neither ours nor a library's."""
    for frame in frames:
        file = frame.f_code.co_filename
        if any(ours in file for ours in _OURS):
            return ""
        if "site-packages" not in file and not file.startswith((sys.prefix, sys.base_prefix)):
            return f"{file}, line {frame.f_lineno}"
    return ""


def _operation(frames: list[FrameType]) -> str:
    for frame in frames[:8]:
        name, file = frame.f_code.co_name, frame.f_code.co_filename
        if file.endswith("collectives.py") and name == "_finish":  # Work.wait has no frame
            return "recv or send"
        if name == "_hear" and file.endswith(_COORDINATOR):
            return "lockstep, for the others' answers,"
        if name in _OPERATIONS and f"torch{os.sep}distributed" in file:
            return name
    return ""
