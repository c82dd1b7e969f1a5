"""When an interrupt may land on the client's side.

Python raises a KeyboardInterrupt between any two bytecodes. In the middle of sending a message it would leave
half of one in the socket, to which the next would be joined; after a reply was taken out of its socket, and
before it is looked at, the reply would be lost. So while messages are handled an interrupt is kept, and it
lands where the client only waits.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Patience:
    """Keeps interrupts while a ``with`` block runs; may be entered again inside of itself.

    An interrupt lands in :meth:`wait` or, where the block ends first, at its end. On other threads than the
    main one no interrupt ever lands, and this does nothing.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._waits = False
        self._came: tuple[int, FrameType | None] | None = None
        self._former: Any = None

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if self._depth == 0:
            former = signal.getsignal(signal.SIGINT)
            self._former, self._came = (former if callable(former) else None), None
            if self._former:
                signal.signal(signal.SIGINT, self._on_signal)
        self._depth += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._depth -= 1
        if self._depth or not self._former:
            return
        signal.signal(signal.SIGINT, self._former)
        if self._came and error is None:
            self._former(*self._came)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._waits:
            self._came = (number, frame)
            return
        self._waits = False
        self._former(number, frame)

    def wait(self, poll: Any, milliseconds: int) -> Any:
        """What ``poll(milliseconds)`` finds; an interrupt that came, or comes, is raised here."""
        if self._depth == 0 or threading.current_thread() is not threading.main_thread():
            return poll(milliseconds)
        self._waits = True
        try:
            if self._came:
                came, self._came = self._came, None
                self._former(*came)
            return poll(milliseconds)
        finally:
            self._waits = False
