"""Rank 0's watch over all ranks, on a thread of its own.

Three things can go wrong that no rank can notice alone, least of all while it waits in a collective:

- A request is to stop, and the ranks must agree where (:mod:`garcon_backend.process.cooperative_stop`).
- Code of the user does not stop, because it is inside native code that no signal reaches.
- The ranks hang: one is silent, or all wait for one another, because they diverged.

The last two end in a restart of all ranks, with the reason: which rank, at which point, in which line of the
user's, in which operation.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from garcon_backend.lockstep.rank_status import RankStatus, rank_status
from garcon_backend.process.cooperative_stop import agreed
from garcon_backend.process.output import log

STUBBORN = 10.0
"""Seconds after an interrupt in which code of the user must have stopped."""

SILENCE = 20.0
"""Seconds after which a rank that does not say where it is counts as lost."""

HANG = float(os.environ.get("GARCON_HANG_TIME", "60"))
"""Seconds in which ranks that all wait for one another must have moved."""

DIVERGED = 5.0
"""The same, where one of them has failed and the others do not know."""

_REMEMBERED = 64
"""Requests whose cancellation is remembered."""

_TICK = 0.25
_PATIENCE = 1.0
"""Seconds that a request runs before anybody asks where it is."""


class Watchdog:
    """Watches the requests that lockstep runs.

    Args:
        interrupts: of rank 0.
        stages: stage of each rank.
        link: to the other ranks.

    Attributes:
        restart: called with the reason when the ranks must be started anew, and does not return; nobody does that
            before :meth:`start`.
    """

    def __init__(self, interrupts: Any, stages: Sequence[int], link: Any) -> None:
        self._interrupts = interrupts
        self._stages, self._link = stages, link
        self.restart: Callable[[str], None] = lambda reason: None
        self._lock = threading.Lock()  # of the socket for signals
        self._since: tuple[str, float] | None = None
        self._cancelled: OrderedDict[str, float] = OrderedDict()
        self._entered: dict[str, dict[int, int]] = {}
        self._heard: dict[int, tuple[float, RankStatus]] = {}
        self._moved = 0.0
        self._asked = 0.0

    def start(self, restart: Callable[[str], None], pulse: Path) -> None:
        """Watch from now on.

        Args:
            restart: starts the ranks anew, with the reason.
            pulse: a file to touch while this process turns, for the launcher: where even this thread stands
                still, nobody else can notice.
        """
        self.restart, self._pulse = restart, pulse
        threading.Thread(target=self._run, daemon=True, name="watch").start()

    # -- told by lockstep --------------------------------------------------------------------

    def begin(self, request: str) -> None:
        """A request begins to run."""
        now = time.monotonic()
        self._heard.clear()
        self._asked = self._moved = now
        self._since = (request, now)

    def end(self) -> None:
        """It is over."""
        self._since = None

    def cancel(self, request: str) -> None:
        """Stop a request on every rank; from any thread. Told again, it is what it was."""
        if request in self._cancelled:
            return
        if request == self._interrupts.request:
            log(f"cancelled {request} while {self._interrupts.phase}")
        self._cancelled[request] = time.monotonic()
        self._entered[request] = {}
        while len(self._cancelled) > _REMEMBERED:
            self._entered.pop(self._cancelled.popitem(last=False)[0], None)
        self._interrupts.cancel(request)
        self._entered[request][0] = self._interrupts.stop.ask(request)
        if len(self._stages) > 1:
            self._signal(b"cancel", request.encode())

    def is_cancelled(self, request: str) -> bool:
        """Whether a request was told to stop; from any thread."""
        return request in self._cancelled

    def _signal(self, *words: bytes) -> None:
        with self._lock:
            self._link.signals.send_multipart(list(words))

    # -- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._pulse.touch(0o600)
            self._listen()
            since = self._since
            if since is None:
                continue
            now = time.monotonic()
            if (told := self._cancelled.get(since[0])) is not None:
                self._check_stubborn(now - max(told, since[1]))
            if len(self._stages) > 1 and now - since[1] > _PATIENCE:
                self._check_hang(since[0], now)

    def _listen(self) -> None:
        """What the others report, for a moment."""
        if len(self._stages) == 1:
            time.sleep(_TICK)
            return
        end = time.monotonic() + _TICK
        while (left := end - time.monotonic()) > 0:
            if self._link.reports.poll(int(left * 1000) + 1):
                self._hear(*self._link.reports.recv_json())

    def _hear(self, kind: str, said: Any) -> None:
        if kind == "entered":
            request, rank, entered = said
            if request in self._entered:
                self._entered[request][rank] = entered
                if len(self._entered[request]) == len(self._stages):
                    self._decide(request, self._entered.pop(request))
        else:
            self._note(RankStatus(**said))

    def _decide(self, request: str, entered: dict[int, int]) -> None:
        """All have said how far they are: let the ranks of each stage stop together."""
        for stage in set(self._stages):
            at = agreed(entered[r] for r, s in enumerate(self._stages) if s == stage)
            self._signal(b"stop", request.encode(), str(stage).encode(), str(at).encode())
            if stage == self._stages[0]:
                self._interrupts.stop.decide(request, at)

    def _note(self, where: RankStatus) -> None:
        now = time.monotonic()
        before = self._heard.get(where.rank)
        if before is None or before[1] != where:
            self._moved = now
        self._heard[where.rank] = (now, where)

    # -- verdicts ----------------------------------------------------------------------------

    def _check_stubborn(self, seconds: float) -> None:
        if seconds < STUBBORN:
            return
        mine = rank_status(0, self._interrupts)
        stuck = [mine, *(where for _, where in self._heard.values())]
        users = [where for where in stuck if where.in_user_code]
        if users:
            self.restart(
                f"a request was interrupted, and {users[0]} for {STUBBORN:.0f} seconds more"
            )

    def _check_hang(self, request: str, now: float) -> None:
        if now - self._asked > _PATIENCE:
            self._asked = now
            self._note(rank_status(0, self._interrupts))
            self._signal(b"where", request.encode())
        started = self._since[1] if self._since else now
        for rank in range(1, len(self._stages)):
            heard = self._heard[rank][0] if rank in self._heard else started
            if now - heard > SILENCE:
                self.restart(f"rank {rank} has not answered for {SILENCE:.0f} seconds")
        everywhere = [where for _, where in self._heard.values()]
        if len(everywhere) < len(self._stages) or not all(w.stuck for w in everywhere):
            return
        if all(where.over for where in everywhere[1:]) and everywhere[0].over:
            return
        patience = DIVERGED if any(where.failed for where in everywhere) else HANG
        if now - self._moved > patience:
            told = "; ".join(str(where) for where in sorted(everywhere, key=lambda w: w.rank))
            self.restart(f"its ranks wait for one another: {told}")


def answer_watchdog(
    link: Any, rank: int, stage: int, interrupts: Any, failed: Callable[[], str]
) -> None:
    """Another rank's side: answers what the watchdog asks, for ever, on a thread of its own."""
    while True:
        kind, request, *words = link.signals.recv_multipart()
        request = request.decode()
        if kind == b"cancel":
            interrupts.cancel(request)
            link.reports.send_json(["entered", [request, rank, interrupts.stop.ask(request)]])
        elif kind == b"stop" and int(words[0]) == stage:
            interrupts.stop.decide(request, int(words[1]))
        elif kind == b"where":
            where = rank_status(rank, interrupts, failed())
            link.reports.send_json(["where", where.plain()])
