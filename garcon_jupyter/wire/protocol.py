"""Names and versions: what a client must know before it can ask anything.

Requests ride on the *shell* channel of rank 0, which is an ordinary Jupyter kernel; short questions
that must be answered while the model is busy (hello, status, dictionaries, cancel, tokenize, shutdown) ride on the
*control* channel. Both are signed with the key of the connection file, which only its owner reads. Large values have a
socket of their own (:mod:`garcon_jupyter.wire.transfers`), between hosts.
"""

from __future__ import annotations

import platform
from typing import Any

from garcon_jupyter.errors import VersionMismatch

PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port", "data_port")
"""The sockets of a server, as its connection file names them: Jupyter's own, and the one for data."""

PROTOCOL = 7
"""Raised whenever an old client and a new server would misunderstand each other."""

REQUEST = "garcon_request"
"""Shell: one request (see :mod:`garcon_jupyter.wire.requests`), answered when it has run."""

HELLO = "garcon_hello"
"""Control: open or resume a session; the answer describes the model."""

STATUS = "garcon_status"
"""Control: what runs, what waits, the idle clock. Never counts as activity."""

DICTIONARIES = "garcon_dictionaries"
"""Control: the points of the dictionaries that are loaded now, which another client may have loaded. Never counts as activity."""

SESSIONS = "garcon_sessions"
"""Control: which sessions there are, who has them, and what is in them. Never counts as activity."""

CANCEL = "garcon_cancel"
"""Control: stop one request, by its message id."""

DETACH = "garcon_detach"
"""Control: the client stops waiting for a request; its answer is kept."""

OUTCOME = "garcon_outcome"
"""Control: what a request printed, and its answer if it has ended."""

RECEIVED = "garcon_received"
"""Control: the client has the answer to a request that took long, which need not be kept."""

REQUESTS = "garcon_requests"
"""Control: the requests of a session that wait, run, or ended without being received."""

TOKENIZE = "garcon_tokenize"
"""Control: text to tokens and back, by the model's own tokenizer."""

RUN = "garcon_run"
"""Control: begin a run over data, look at one, or steer it (:mod:`garcon_jupyter.wire.runs`)."""

GOODBYE = "garcon_goodbye"
"""Control: a client leaves; its session stays and can be resumed."""

KEEP_ALIVE = "garcon_keep_alive"
"""Control: start the idle time anew, as a request would; somebody has asked for it by hand."""

SHUTDOWN = "garcon_shutdown"
"""Control: end the server; refused while other clients live, unless forced."""

WAITING = "garcon_waiting"
"""Iopub, to a request: its place in the row, and a text that says who is before it."""

IDLE_WARNING = "garcon_idle_warning"
"""Iopub, to all: the seconds after which the server ends, unless a request comes. Answers on the control
channel hold it too, for those who do not listen."""

ASK = "ask"
"""Data: the side that wants a transfer asks for some of its chunks."""

CHUNK = "chunk"
"""Data: one of them; its bytes follow the header."""

OFFER = "offer"
"""Data: a client has a transfer for the server, which will ask for it, or refuse it."""

TAKEN = "taken"
"""Data: the side that wanted a transfer has it, or wants it no more; it is forgotten."""

REFUSED = "refused"
"""Data: there is no such transfer, or no room for it."""

CONTROL_MESSAGES = (
    HELLO,
    STATUS,
    DICTIONARIES,
    SESSIONS,
    CANCEL,
    DETACH,
    OUTCOME,
    RECEIVED,
    REQUESTS,
    TOKENIZE,
    RUN,
    GOODBYE,
    KEEP_ALIVE,
    SHUTDOWN,
)

DATA_MESSAGES = (ASK, CHUNK, OFFER, TAKEN, REFUSED)


def python_version() -> str:
    """Minor version of this Python: code objects only travel between equal ones."""
    return ".".join(platform.python_version_tuple()[:2])


def check_versions(server: dict[str, Any], client: dict[str, Any]) -> None:
    """Refuse a server and a client that would misunderstand each other; both sides ask.

    Raises:
        VersionMismatch: says in what they differ.
    """
    for what in ("protocol", "python"):
        if server.get(what) != client.get(what):
            raise VersionMismatch(
                f"The server speaks {what} {server.get(what)}, this client {client.get(what)}.",
                "Install the same garcon-jupyter and Python minor version on both sides.",
            )


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
