"""Work on several threads at once, which ends together: an interrupt stops all of it.

Python has an interrupt land on the main thread. The threads are told by an event that they ask after while they wait
for a server (:mod:`garcon_jupyter.connection.called_off`), so each request is stopped as its own interrupt would stop
it, and every member can be used right after.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import TypeVar

from garcon_jupyter.connection import called_off
from garcon_jupyter.errors import Interrupted

T = TypeVar("T")


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

    try:
        # In a copy of this thread's context, by which a notebook knows to which cell a print belongs.
        begun = {
            label: pool.submit(contextvars.copy_context().run, heeding, each)
            for label, each in work.items()
        }
        try:
            futures.wait(begun.values())
        except KeyboardInterrupt:
            event.set()
            futures.wait(begun.values())
            raise Interrupted(
                f"You interrupted it, and so all that {len(work)} members were doing.",
                "Each of them is intact, and takes the next request.",
            ) from None
    except BaseException:
        event.set()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    found: dict[str, T | BaseException] = {}
    for label, future in begun.items():
        error = future.exception()
        found[label] = future.result() if error is None else error
    return found
