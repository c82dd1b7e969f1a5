"""Work that a widget asks for, beside the kernel.

A callback of a widget runs on the kernel's main thread, or on a subshell's; either way the next cell
waits for it. So a callback that needs a model only says what is wanted, and a thread of its own asks
the server and sets the traits when the answer is there. Of several wishes of one kind the latest
counts: a slider that moves twenty times costs two passes, not twenty.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

Task = Callable[[], None]


class Worker:
    """Runs tasks one after another on a thread that lives only while there are some.

    Args:
        changed: is told True when work begins and False when all is done.
        failed: is given what a task raised.
    """

    def __init__(
        self, changed: Callable[[bool], None], failed: Callable[[Exception], None]
    ) -> None:
        self._changed, self._failed = changed, failed
        self._tasks: dict[str, Task] = {}
        self._state = threading.Condition()
        self._running = False
        self._closed = False

    def submit(self, kind: str, task: Task) -> None:
        """Run a task soon, in place of a task of this kind that still waits."""
        with self._state:
            if self._closed:
                return
            self._tasks.pop(kind, None)
            self._tasks[kind] = task
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._run, name="garcon widget", daemon=True).start()

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until nothing is left to do; whether that came to pass."""
        with self._state:
            return self._state.wait_for(lambda: not self._running, seconds)

    def close(self) -> None:
        """Forget what waits, and take no more."""
        with self._state:
            self._closed = True
            self._tasks.clear()

    @property
    def superseded(self) -> bool:
        """Whether something waits: a long task may look, and leave off."""
        with self._state:
            return self._closed or bool(self._tasks)

    @property
    def closed(self) -> bool:
        """Whether nobody waits for the results any more."""
        return self._closed

    def _run(self) -> None:
        self._changed(True)
        while (task := self._next()) is not None:
            try:
                task()
            except Exception as error:  # noqa: BLE001 - whatever it is, the user is to see it
                self._failed(error)
        self._changed(False)
        with self._state:
            again = bool(self._tasks)
            self._running = again
            self._state.notify_all()
        if again:  # it came while the others were told that all is done
            self._run()

    def _next(self) -> Task | None:
        with self._state:
            return self._tasks.pop(next(iter(self._tasks))) if self._tasks else None
