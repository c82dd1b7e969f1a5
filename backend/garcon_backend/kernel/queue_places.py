"""Who waits is told for how many requests, and whose.

A request that has to wait for more than a moment tells its client its place in the queue, and again whenever
that changed. The client shows it in the cell that waits.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from garcon_backend.lockstep.turns import Queued, Turns

MOMENT = 0.5
"""Seconds of waiting before a client is told; and between two looks at whether the places changed."""

_MOST_NAMED = 3

Tell = Callable[[Queued, dict[str, Any]], None]
"""(request, content of the message)"""


class QueuePlaces:
    """Tells the places of the requests that wait.

    Args:
        turns: the queue.
        user: who a session belongs to.
        tell: sends a client the message.
    """

    def __init__(
        self,
        turns: Turns,
        user: Callable[[str], str],
        tell: Tell,
    ) -> None:
        self._turns, self._user, self._tell = turns, user, tell

    def rows(self) -> list[tuple[Queued, list[Queued]]]:
        """Each request that waits, with those that come before it."""
        running = self._turns.running
        queue = [*([running] if running else []), *self._turns.waiting()]
        first = 1 if running else 0
        return [(item, queue[:place]) for place, item in enumerate(queue) if place >= first]

    def look(self) -> bool:
        """Tell those whose places changed; whether anybody waits."""
        rows = self.rows()
        for item, before in rows:
            if before and time.time() - item.since >= MOMENT and item.told != len(before):
                item.told = len(before)
                text = f"waiting: {self.described(before)}\n"
                self._tell(item, {"place": len(before) + 1, "text": text})
        return bool(rows)

    def described(self, before: Sequence[Queued]) -> str:
        """Who is before: "2 requests before yours (alice: forward, bob: 3 × generate)"."""
        each = Counter((self._user(item.session), item.kind) for item in before)
        named = [
            f"{user}: {kind}" if count == 1 else f"{user}: {count} × {kind}"
            for (user, kind), count in each.items()
        ]
        if len(named) > _MOST_NAMED:
            named[_MOST_NAMED:] = ["…"]
        requests = "1 request" if len(before) == 1 else f"{len(before)} requests"
        return f"{requests} before yours ({', '.join(named)})"
