"""While a request is waited for: what of it has come, and whether the server still turns."""

from __future__ import annotations

import time
from typing import Any

from garcon_jupyter.connection import prints

LONG = 5.0
"""Seconds from which on the server keeps an answer until it hears that it was received."""


class PendingReply:
    """What a request is still waited for."""

    def __init__(self, message_id: str, session: str, show: prints.Show) -> None:
        self.message_id, self.session = message_id, session
        self.since = self.looked = time.monotonic()
        self.show = show
        self.reply: dict[str, Any] | None = None
        self.heard = 0
        self.until = 0.0
        self.cancelled = False

    @property
    def over(self) -> bool:
        """Whether the reply is there, and all that was printed before it."""
        # Prints travel on another socket than the reply, which says how many there are.
        if self.reply is None:
            return False
        return (
            self.heard >= self.reply["content"].get("printed", 0) or self.until < time.monotonic()
        )


class Pulse:
    """Whether the server's process still turns: Jupyter's heartbeat, which echoes what it is sent
    whatever Python is doing there.
    """

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self._asked = 0.0
        self.heard()

    def heard(self) -> None:
        """Something came from the server."""
        self._last = time.monotonic()
        while self.socket.poll(0):
            self.socket.recv_multipart()

    def ask(self) -> None:
        """Ask for an echo, once in a second."""
        if time.monotonic() - self._asked > 1.0:
            self._asked = time.monotonic()
            self.socket.send_multipart([b"", b"ping"])

    @property
    def silence(self) -> float:
        """Seconds since anything came from the server."""
        return time.monotonic() - self._last
