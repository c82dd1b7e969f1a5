"""The way to a server of another machine, as much of it as a connection needs to know."""

from __future__ import annotations

from typing import Any, Protocol

from garcon_jupyter.errors import ServerGone


class Route(Protocol):
    """A way to a server that can be lost while the server goes on, such as a tunnel by ssh.

    As a context it is held, and closed by the last who holds it.
    """

    @property
    def open(self) -> bool:
        """Whether the server can be reached by it."""

    def loss(self) -> ServerGone | None:
        """The error where it is not the server that is gone but the way to it."""

    def why_gone(self) -> str:
        """Why the server ended; "" where nothing is known."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *_: object) -> None: ...
