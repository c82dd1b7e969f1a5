"""Sessions whose clients are gone for good, and what they recorded."""

from __future__ import annotations

import time
from collections.abc import Callable

from garcon_backend.kernel.context import KernelContext
from garcon_backend.lockstep.outcome import RequestFailed
from garcon_backend.process.output import log
from garcon_backend.runs.server_runs import Runs
from garcon_jupyter.wire.requests import Drop


def forget_gone(context: KernelContext, runs: Runs, is_empty: Callable[[str], bool]) -> list[str]:
    """Drop what sessions recorded whose clients are gone for good; between two requests.

    Args:
        is_empty: whether there is nothing in a session.

    Returns:
        Their names.
    """
    after, now = context.facts["forget"], time.monotonic()
    gone = context.sessions.forget(after, now, runs.active, is_empty)
    for name in gone:
        context.outcomes.drop(name)
        if context.data:
            context.data.leave(name)
        try:
            context.lockstep.run(f"forget {name}", Drop(session=name))
        except RequestFailed as error:
            log(f"session {name} cannot be dropped: {error}")
        context.lockstep.recorded.drop(name)
    return gone
