"""What the kernel serves, as rank 0 hands it over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from garcon_backend.kernel.data_socket import DataPlane
from garcon_backend.kernel.idle import IdleClock
from garcon_backend.lockstep.coordinator import Lockstep
from garcon_backend.tokenization.tokenizer import Tokenizing


class Served:
    """What the kernel serves: made by rank 0 before the kernel starts.

    Attributes:
        facts: plain facts about server and model, sent to every client.
        catalog: points and parameters.
        shared: directory in shared memory for large answers.
        stop: called with a reason when the server shall end.
        checkpoints: directory for those of runs.
        data: the socket for large values.
    """

    def __init__(
        self,
        lockstep: Lockstep,
        tokenizing: Tokenizing,
        clock: IdleClock,
        facts: dict[str, Any],
        catalog: Any,
        shared: Path,
        stop: Callable[[str], None],
        checkpoints: Path,
        data: DataPlane,
    ) -> None:
        self.lockstep, self.tokenizing, self.clock = lockstep, tokenizing, clock
        self.checkpoints, self.data = checkpoints, data
        self.facts, self.catalog, self.shared, self.stop = facts, catalog, shared, stop
