"""The lines of one model to its server: that of cells, and another one beside it.

On a line one request is answered after the other. So what pictures ask for has a line of its own, and a cell never
waits here for an answer that a picture waits for; who is first is for the server to say.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

from garcon_jupyter.connection import background
from garcon_jupyter.connection.connection import Connection
from garcon_jupyter.errors import GarconError
from garcon_jupyter.wire import protocol


class Lines:
    """The line of cells, and the one beside it, which is made when it is first needed.

    Args:
        main: the line of cells.
        another: makes one more.
    """

    def __init__(self, main: Connection, another: Callable[[], Connection]) -> None:
        self._main, self._another = main, another
        self._beside: Connection | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._owner = os.getpid()

    def here(self) -> Connection:
        """The line for a request of this thread (:mod:`garcon_jupyter.connection.background`)."""
        if not background.is_beside():
            return self._main
        with self._lock:
            if self._closed:
                return self._main  # which says so
            if self._beside is None:
                self._beside = self._another()
                self._beside.wait_for_prints()
            line = self._beside
        line.follow()
        return line

    def close(self) -> None:
        """Hang up the line beside that of cells; what is asked on it is asked for nobody now."""
        if os.getpid() != self._owner:  # a fork has copies of locks whose holders it lacks
            return
        with self._lock:
            line, self._beside, self._closed = self._beside, None, True
        if line is None:
            return
        if asked := line.request_id:
            with contextlib.suppress(
                GarconError, OSError
            ):  # the server has gone, and the request with it
                line.ask(protocol.CANCEL, {"request": asked})
        line.close(patience=5.0)
