"""What the kernel serves, and who is there: made by rank 0 before the kernel starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from garcon_backend.kernel.data_socket import DataPlane
from garcon_backend.kernel.idle import IdleClock
from garcon_backend.kernel.outcomes import Outcomes
from garcon_backend.kernel.sessions import Sessions
from garcon_backend.lockstep.coordinator import Lockstep
from garcon_backend.lockstep.turns import Queued, Turns
from garcon_backend.tokenization.tokenizer import Tokenizing


@dataclass(frozen=True)
class KernelContext:
    """What requests and short questions are answered with.

    Attributes:
        lockstep: runs requests on all ranks.
        tokenizing: text to tokens and back.
        clock: ends an unused server.
        facts: plain facts about server and model, sent to every client.
        catalog: points and parameters.
        shared: directory in shared memory for large answers; None where they go with the message.
        stop: called with a reason when the server shall end.
        checkpoints: directory for those of runs.
        data: the socket for large values; None where nobody is elsewhere.
        sessions: who is there.
        turns: the queue of requests.
        outcomes: what became of requests that nobody waited for.
    """

    lockstep: Lockstep
    tokenizing: Tokenizing
    clock: IdleClock
    facts: dict[str, Any]
    catalog: Any
    shared: Path | None
    stop: Callable[[str], None]
    checkpoints: Path
    data: DataPlane | None
    sessions: Sessions = field(default_factory=Sessions)
    turns: Turns = field(default_factory=Turns)
    outcomes: Outcomes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "outcomes", Outcomes(self.data))

    @property
    def certificate(self) -> dict[str, Any] | None:
        """The certificate of the model, as plain data, where one was made."""
        return self.lockstep.executor.rank.contexts.certificate

    @property
    def weights(self) -> str | None:
        """Directory of the checkpoint whose weights are loaded; None of a module of the user's own."""
        weights = self.lockstep.executor.rank.weights
        return None if weights is None else str(weights.directory)

    @property
    def running(self) -> Queued | None:
        """The request whose turn it is."""
        return self.turns.running

    def user(self, session: str) -> str:
        """Who a session belongs to, for others."""
        return self.sessions.user(session) or "the server"
