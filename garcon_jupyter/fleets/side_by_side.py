"""Work on several threads at once, which ends together: an interrupt stops all of it.

Python has an interrupt land on the main thread. The threads are told by an event that they ask after while they wait
for a server (:mod:`garcon_jupyter.connection.called_off`), so each request is stopped as its own interrupt would stop
it, and every member can be used right after.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent import futures
from typing import TypeVar

from garcon_jupyter.connection import called_off
from garcon_jupyter.connection.deferred_interrupts import Patience
from garcon_jupyter.errors import Interrupted

T = TypeVar("T")

TICK = 0.05
"""Seconds between two looks for an interrupt."""


def side_by_side(
    work: Mapping[str, Callable[[], T]], at_once: int | None = None
) -> dict[str, T | BaseException]:
    """Do all of it, on threads.

    Args:
        work: what there is to do, by label.
        at_once: threads at most; None for one each.

    Returns:
        What each has come to, in the same order: its value, or what it raised.

    Raises:
        Interrupted: you interrupted it; all of it has been stopped. A second interrupt waits for nothing.
    """
    if not work:
        return {}
    event = threading.Event()
    pool = futures.ThreadPoolExecutor(at_once or len(work), thread_name_prefix="garcon-fleet")

    def heeding(each: Callable[[], T]) -> T:
        with called_off.by(event):
            called_off.check()
            return each()

    patience = (
        Patience()
    )  # an interrupt in the midst of handing out work would leave a thread that nobody tells
    with patience:
        # In a copy of this thread's context, by which a notebook knows to which cell a print belongs.
        begun = {
            label: pool.submit(contextvars.copy_context().run, heeding, each)
            for label, each in work.items()
        }
        try:
            _attend(begun.values(), patience)
        except KeyboardInterrupt:
            event.set()
            _attend(begun.values(), patience)
            raise Interrupted(
                f"You interrupted it, and so all that {len(work)} members were doing.",
                "Each of them is intact, and takes the next request.",
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    found: dict[str, T | BaseException] = {}
    for label, future in begun.items():
        error = future.exception()
        found[label] = future.result() if error is None else error
    return found


def _attend(begun: Collection[futures.Future[T]], patience: Patience) -> None:
    """Wait until all have ended; an interrupt lands between two looks."""
    while futures.wait(begun, timeout=TICK).not_done:
        patience.wait(lambda milliseconds: None, 0)
