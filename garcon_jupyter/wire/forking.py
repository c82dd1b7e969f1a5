"""Asking a preloaded process to fork one: the words, and the birth of a child that the asker controls.

The asker sends a message, with the files that the child is to write to. The child, as soon as it is nobody's but its
new parent's, tells its number and waits for a word: where the asker is gone, or has given up and starts one by
command, the child ends unseen. So there is never one too many.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SOCKET = "preloaded"
"""Name of the socket of a server's preloaded process, in the server's own directory (0700)."""

PATIENCE = 10.0
"""Seconds after which a preloaded process that says nothing counts as none."""

_MOST_FILES = 4
_MOST_BYTES = 1 << 24
_HEAD = struct.Struct("!I")


class NotForked(Exception):
    """Nothing was forked, and why; a start by command works as ever."""


def send(link: socket.socket, message: dict[str, Any], files: Sequence[int] = ()) -> None:
    """Send a message, and open files with it."""
    data = json.dumps(message).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
    link.sendmsg([_HEAD.pack(len(data))], rights)
    link.sendall(data)


def receive(link: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A message, and the files that came with it.

    Raises:
        EOFError: the other side is gone.
        ValueError: that is no message.
    """
    head, files, _, _ = socket.recv_fds(link, _HEAD.size, _MOST_FILES)
    try:
        if len(head) < _HEAD.size:
            raise EOFError
        (length,) = _HEAD.unpack(head)
        if length > _MOST_BYTES:
            raise ValueError(f"{length} bytes are no message")
        message = json.loads(_exactly(link, length))
        if not isinstance(message, dict):
            raise ValueError("a message is a dictionary")
        return message, files
    except BaseException:
        for file in files:
            os.close(file)
        raise


def _exactly(link: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = link.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def peer(link: socket.socket) -> int:
    """The user on the other side, as the kernel tells it."""
    credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def born(link: socket.socket) -> int:
    """The number of the child, which may live from now on.

    Raises:
        NotForked: there is none; says why.
    """
    link.settimeout(PATIENCE)
    try:
        told, _ = receive(link)
        if "pid" in told:
            send(link, {"live": True})
            return int(told["pid"])
        raise NotForked(str(told.get("refused")))
    except (OSError, EOFError, ValueError) as error:
        raise NotForked(f"it does not answer: {error!r}") from error


def knock(file: Path, message: dict[str, Any], files: Sequence[int]) -> int:
    """Ask the preloaded process behind a socket file for a child; its number.

    Raises:
        NotForked: nobody is there, or none of this user's, or it refuses.
    """
    directory = file.parent.stat() if file.parent.exists() else None
    if not directory or directory.st_uid != os.getuid() or directory.st_mode & 0o077:
        raise NotForked(f"{file.parent} is no private directory of this user")
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(PATIENCE)
        try:
            link.connect(str(file))
            if peer(link) != os.getuid():
                raise NotForked("another user is behind it")
            send(link, message, files)
        except OSError as error:
            raise NotForked(f"it does not answer: {error!r}") from error
        return born(link)
