"""What was lost, and whether to start anew.

A server whose rank died, hangs or was killed starts its ranks again: the model reloads, clients go on. One
that is lost again and again has a fault that a restart does not cure, so after :data:`LIMIT` losses within
:data:`WINDOW` it gives up, with the reasons.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT = 3
"""Losses within the window after which a server gives up."""

WINDOW = 600.0
"""Seconds."""


def epoch() -> int:
    """How often the ranks of this server were started before."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


class Losses:
    """The losses of one server, in a file that outlives its ranks.

    Args:
        file: of the server's own directory.
        now: the clock, in seconds; tests bring their own.
    """

    def __init__(self, file: Path, now: Callable[[], float] = time.time) -> None:
        self._file, self._now = file, now

    def all(self) -> list[dict[str, Any]]:
        """Each as ``{"time", "reason"}``, oldest first."""
        try:
            losses: list[dict[str, Any]] = json.loads(self._file.read_text())
            return losses
        except (OSError, ValueError):
            return []

    def note(self, reason: str) -> None:
        """Remember a loss."""
        losses = [*self.all(), {"time": self._now(), "reason": reason}]
        self._file.write_text(json.dumps(losses[-100:]))

    @property
    def too_many(self) -> bool:
        """Whether to give up."""
        since = self._now() - WINDOW
        return sum(bool(loss["time"] > since) for loss in self.all()) > LIMIT

    def verdict(self) -> str:
        """Why the server gave up."""
        last = self.all()[-1]["reason"]
        return f"it was lost {LIMIT + 1} times within {WINDOW / 60:.0f} minutes, at last because {last}"
