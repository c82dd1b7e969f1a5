"""Messages read and sent, by the session of Jupyter's that signs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jupyter_client.session import Session

from garcon_jupyter.errors import BadRequest, GarconError
from garcon_jupyter.wire import transport
from garcon_jupyter.wire.checking import encodable


class Messages:
    """What kernel and control channel share.

    Args:
        session: signs, and numbers.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def send(self, stream: Any, kind: str, content: Any, *args: Any, **kwargs: Any) -> None:
        """Send a message over a socket or a stream of this thread's; arguments as of Jupyter's own ``send``."""
        try:
            self._session.send(stream, kind, content, *args, **kwargs)
        except UnicodeEncodeError:  # somebody printed, or named, what is no text
            self._session.send(stream, kind, encodable(content), *args, **kwargs)


def unpacked(
    parent: dict[str, Any], shared: Path | None, take: transport.Take | None = None
) -> Any:
    """What a message carries.

    Args:
        shared: directory in shared memory by which large values come.
        take: gives what came over the socket for data.

    Raises:
        Corrupted: its buffers are not those that were signed; they were not read.
        BadRequest: it cannot be unpickled.
    """
    try:
        return transport.unpack(parent["content"], parent["buffers"], shared=shared, take=take)
    except GarconError:
        raise
    except Exception as error:
        raise BadRequest(
            f"A message cannot be unpickled: {type(error).__name__}: {error}.",
            "Use the same version on both sides.",
        ) from error
