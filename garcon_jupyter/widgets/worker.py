"""Work that a widget asks for, beside the kernel.

A callback of a widget runs on the kernel's main thread, or on a subshell's; either way the next cell
waits for it. So a callback that needs a model only says what is wanted, and a thread of its own asks
the server and sets the traits when the answer is there. Of several wishes of one kind the latest
counts: a slider that moves twenty times costs two passes, not twenty.

What takes long is given as an iterator and done in *pieces*, a ``next`` each. Between two pieces other tasks have
their turn, such as what a click asks for, and there the work can be stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Literal

from ..libraries import side_threads

Task = Callable[[], None] | Iterator[None]
"""Something to do, or its pieces. An iterator that is left off before its end is closed, by the same thread."""

_Left = Literal["filling", "stopped", "failed"]

_END = object()


class WidgetWorker:
    """Runs tasks one after another on a thread that lives only while there are some.

    Args:
        changed: is told whenever work begins, is stopped, or ends.
        failed: is given what a task raised.

    Attributes:
        busy: whether something is done.
    """

    def __init__(self, changed: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        self._changed, self._failed = changed, failed
        self._tasks: dict[str, Task] = {}
        self._over: list[Iterator[None]] = []
        """Pieces that nobody wants any more, and that are still to be closed."""
        self._left: dict[str, _Left] = {}
        """Of each kind of work in pieces that is not whole, why not."""
        self._state = threading.Condition()
        self._running = False
        self._closed = False
        self.busy = False

    def submit(self, kind: str, task: Task) -> None:
        """Run a task soon, in place of one of this kind that still waits or has pieces left."""
        with self._state:
            if self._closed:
                return
            self._leave_off(kind)
            self._left.pop(kind, None)
            self._tasks[kind] = task
            if isinstance(task, Iterator):
                self._left[kind] = "filling"
            if self._running:
                return
            self._running = self.busy = True
        side_threads.start("garcon widget", self._run, stop=self.close)

    def wait(self, seconds: float | None = 60.0) -> bool:
        """Wait until nothing is left to do, without end where `seconds` is None; whether that came to pass."""
        with self._state:
            return self._state.wait_for(lambda: not self._running, seconds)

    def stop(self) -> bool:
        """Leave off work in pieces after the present one; whether there was any."""
        with self._state:
            going = [kind for kind, why in self._left.items() if why == "filling"]
            for kind in going:
                self._left[kind] = "stopped"
                self._leave_off(kind)
        if going:
            self._tell()
        return bool(going)

    def close(self) -> None:
        """Forget what waits, and take no more."""
        with self._state:
            self._closed = True
            for kind in list(self._tasks):
                self._leave_off(kind)

    @property
    def filling(self) -> bool:
        """Whether work in pieces goes on, which can be stopped."""
        return self._is("filling")

    @property
    def stopped(self) -> bool:
        """Whether work in pieces was stopped before it was whole."""
        return self._is("stopped")

    @property
    def left(self) -> bool:
        """Whether work in pieces is not whole: it goes on, was stopped, or failed."""
        with self._state:
            return bool(self._left)

    @property
    def closed(self) -> bool:
        """Whether nobody waits for the results any more."""
        return self._closed

    def _is(self, why: _Left) -> bool:
        with self._state:
            return why in self._left.values()

    def _leave_off(self, kind: str) -> None:
        """Forget a task; its pieces, where some were done, are closed by the thread that did them."""
        task = self._tasks.pop(kind, None)
        if isinstance(task, Iterator):
            self._over.append(task)

    def _run(self) -> None:
        while True:
            self._tell()
            while (found := self._next()) is not None:
                self._do(*found)
            self.busy = False
            self._tell()
            with self._state:
                self._running = self.busy = bool(self._tasks or self._over)
                self._state.notify_all()
                if not self._running:  # else it came while the others were told that all is done
                    return

    def _tell(self) -> None:
        try:
            self._changed()
        except Exception as error:  # noqa: BLE001 - else whoever waits would wait for ever
            self._failed(error)

    def _next(self) -> tuple[str, Task] | None:
        with self._state:
            if self._over:
                return "", _closing(self._over.pop())
            if not self._tasks:
                return None
            kind = next(iter(self._tasks))
            return kind, self._tasks.pop(kind)

    def _do(self, kind: str, task: Task) -> None:
        """A whole task, or one piece of it."""
        try:
            if not isinstance(task, Iterator):
                task()
            elif next(task, _END) is _END:
                self._ended(kind)
            else:
                self._put_back(kind, task)
        except Exception as error:  # noqa: BLE001 - whatever it is, the user is to see it
            if isinstance(task, Iterator):
                self._ended(kind, "failed")
            self._failed(error)

    def _ended(self, kind: str, why: _Left | None = None) -> None:
        """Work in pieces has come to its end, or failed."""
        with self._state:
            if kind in self._tasks:  # the same was asked for anew meanwhile
                return
            self._left.pop(kind, None)
            if why:
                self._left[kind] = why

    def _put_back(self, kind: str, pieces: Iterator[None]) -> None:
        """Let the others have their turn before the next piece, unless nobody wants it any more."""
        with self._state:
            wanted = self._left.get(kind) == "filling" and kind not in self._tasks
            if wanted and not self._closed:
                self._tasks[kind] = pieces
            else:
                self._over.append(pieces)


def _closing(pieces: Iterator[None]) -> Callable[[], None]:
    """Lets work that was begun clear up behind itself."""

    def close() -> None:
        end = getattr(pieces, "close", None)
        if end is not None:
            end()

    return close
