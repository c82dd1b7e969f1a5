"""Names and versions: what a client must know before it can ask anything.

Requests ride on the *shell* channel of rank 0, which is an ordinary Jupyter kernel; short questions
that must be answered while the model is busy (hello, status, cancel, tokenize, shutdown) ride on the
*control* channel. Both are signed with the key of the connection file, which only its owner reads.
"""

from __future__ import annotations

import platform
from typing import Any

PROTOCOL = 1
"""Raised whenever an old client and a new server would misunderstand each other."""

REQUEST = "garcon_request"
"""Shell: one request (see :mod:`garcon_jupyter.wire.requests`), answered when it has run."""

HELLO = "garcon_hello"
"""Control: open or resume a session; the answer describes the model."""

STATUS = "garcon_status"
"""Control: what runs, what waits, the idle clock. Never counts as activity."""

CANCEL = "garcon_cancel"
"""Control: stop one request, by its message id."""

TOKENIZE = "garcon_tokenize"
"""Control: text to tokens and back, by the model's own tokenizer."""

GOODBYE = "garcon_goodbye"
"""Control: a client leaves; its session stays and can be resumed."""

SHUTDOWN = "garcon_shutdown"
"""Control: end the server; refused while other clients live, unless forced."""

CONTROL_MESSAGES = (HELLO, STATUS, CANCEL, TOKENIZE, GOODBYE, SHUTDOWN)


def python_version() -> str:
    """Minor version of this Python: code objects only travel between equal ones."""
    return ".".join(platform.python_version_tuple()[:2])


def reply_type(request_type: str) -> str:
    """Type of the message that answers a message of this type."""
    return f"{request_type}_reply"


def client_facts() -> dict[str, Any]:
    """What a client says of itself, so that the server can tell whether it still lives."""
    import getpass
    import os
    import socket

    return {
        "user": getpass.getuser(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "python": python_version(),
        "protocol": PROTOCOL,
    }
