"""Turns: which request is next.

Sessions are served in turn, one request each. What a person runs goes first: work in the background (pictures that
fill, runs over data) stands in a row of its own, *behind*, whose pieces go when nobody's request waits. In a loop of
requests there are moments without one, so a piece is not begun until nobody has asked for anything for a moment.
Nobody is kept waiting for ever: when those in front have had a certain multiple of the time that the last piece took,
the next one is due.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LINGER = 0.1
"""Seconds after a request in which another of the same person may follow: so long nothing behind is begun."""

SHARE = 2.0
"""What those in front may have of the time, as a multiple of what those behind have, before one of these is due."""

USUAL = 0.5
"""Seconds that a piece of work in the background is taken to need, before there was one."""


@dataclass
class Queued:
    """A request that waits for its turn."""

    session: str
    id: str
    kind: str
    message: Any
    behind: bool = False
    """Whether it is work in the background, for which nobody sits and waits."""
    since: float = field(default_factory=time.time)
    seconds: float = 0.0
    """How long it ran."""
    printed: int = 0
    """Messages of what its code printed."""
    told: int = 0
    """The place in the queue that its client was told last; 0 for none."""
    prints: list[Any] = field(default_factory=list)
    """What they said, as (rank, stream, text)."""


class _FairQueue:
    """Requests, taken from the sessions in turn: nobody waits behind another's whole queue."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[Queued]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._queues)

    def put(self, item: Queued) -> None:
        """At the end of its session's queue."""
        self._queues.setdefault(item.session, deque()).append(item)

    def take(self) -> Queued:
        """The next request; its session then goes to the end of the queue."""
        session, queue = self._queues.popitem(last=False)
        item = queue.popleft()
        if queue:
            self._queues[session] = queue
        return item

    def remove(self, request_id: str) -> Queued | None:
        """Take out a certain request; None where it is not here."""
        for session, queue in self._queues.items():
            for item in queue:
                if item.id == request_id:
                    queue.remove(item)
                    if not queue:
                        del self._queues[session]
                    return item
        return None

    def in_order(self) -> list[Queued]:
        """All of them, as their turns will come."""
        rows = [list(queue) for queue in self._queues.values()]
        depth = max(map(len, rows), default=0)
        return [row[n] for n in range(depth) for row in rows if n < len(row)]


class Turns:
    """Requests waiting, those of persons in front of work in the background.

    Requests come on one thread, are asked about on a second and run on a third.

    Args:
        clock: tells the time in seconds.

    Attributes:
        running: the request whose turn it is, None between two.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.running: Queued | None = None
        self._front, self._behind = _FairQueue(), _FairQueue()
        self._clock = clock
        self._began = 0.0
        self._asked = -LINGER
        """When a request in front last ended."""
        self._waits = 0.0
        """Since when those behind wait, or had their last turn."""
        self._took = USUAL
        """Seconds of that turn."""
        self._lock = threading.Lock()

    def put(self, item: Queued) -> None:
        """Put a request at the end of its session's queue."""
        with self._lock:
            if not item.behind:
                self._front.put(item)
                return
            if not self._behind:
                self._waits = max(self._waits, self._clock())
            self._behind.put(item)

    def next(self) -> Queued | None:
        """Begin the turn of the next request; None where there is none, or not yet (:attr:`pause`)."""
        with self._lock:
            now = self._clock()
            if self._behind and (now >= self._due or (not self._front and now >= self._quiet)):
                queue = self._behind
            elif self._front:
                queue = self._front
            else:
                return None
            self.running, self._began = queue.take(), now
            return self.running

    @property
    def pause(self) -> float | None:
        """Seconds after which to ask again where no other request comes; None where nothing waits."""
        with self._lock:
            if not self._behind:
                return None
            return max(0.0, min(self._due, self._quiet) - self._clock())

    @property
    def _due(self) -> float:
        """When those behind have their turn whoever waits."""
        return self._waits + SHARE * self._took

    @property
    def _quiet(self) -> float:
        """When nobody has asked for anything for a moment."""
        return self._asked + LINGER

    def end(self, item: Queued) -> None:
        """End the turn of a request, if it still has it."""
        with self._lock:
            if self.running is not item:
                return
            self.running = None
            now = self._clock()
            if item.behind:
                self._waits, self._took = now, now - self._began
            else:
                self._asked = now

    def remove(self, request_id: str) -> Queued | None:
        """Take a waiting request out of the queue; None where it does not wait."""
        with self._lock:
            return self._front.remove(request_id) or self._behind.remove(request_id)

    def waiting(self) -> list[Queued]:
        """All waiting requests, in the order in which their turns will come."""
        with self._lock:
            return self._in_order()

    def unfinished(self) -> list[Queued]:
        """The one that runs, and all that wait."""
        with self._lock:
            return [*([self.running] if self.running else []), *self._in_order()]

    def _in_order(self) -> list[Queued]:
        return [*self._front.in_order(), *self._behind.in_order()]
