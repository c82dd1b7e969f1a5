"""Requests whose client has ended.

A request that runs when its notebook dies goes on: a restarted notebook resumes the session and may ask for the
answer. But one that never ends must not hold the server for ever, from others or from its idle time. So it is
stopped a while after its client has ended, unless somebody resumed the session meanwhile: then it is theirs.
"""

from __future__ import annotations

import os

from garcon_backend.lockstep.turns import Queued

ORPHANED = float(os.environ.get("GARCON_ORPHANED", "60"))
"""Seconds after the end of its client for which a request runs on, where another waits for its turn."""


class Orphans:
    """Says which request has run without a client for too long.

    Args:
        alone: seconds for which it runs on where nobody waits; None for ever.
    """

    def __init__(self, alone: float | None) -> None:
        self._alone = alone
        self._found: tuple[str, float] | None = None

    def look(self, running: Queued | None, others: bool, now: float) -> Queued | None:
        """The request to be stopped, if any. To be called every few seconds.

        Args:
            running: the request that runs, if its client has ended.
            others: whether others wait.
            now: seconds, by any clock that the last call was told by.
        """
        if running is None:
            self._found = None
            return None
        if self._found is None or self._found[0] != running.id:
            self._found = (running.id, now)
        patience = ORPHANED if others else self._alone
        return running if patience is not None and now - self._found[1] >= patience else None
