"""A process that runs tasks for whoever started it: pickled items come in, pickled results go out.

It ends when its standard input does, so it does not outlive who started it for longer than a task.
"""

from __future__ import annotations

import os
import pickle
import struct
from typing import IO, Any

LENGTH = struct.Struct("<Q")


def put(stream: IO[bytes], value: Any) -> None:
    """Send a value."""
    content = pickle.dumps(value)
    stream.write(LENGTH.pack(len(content)) + content)
    stream.flush()


def get(stream: IO[bytes]) -> Any:
    """The next value.

    Raises:
        EOFError: there will be none.
    """
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    content = stream.read(LENGTH.unpack(head)[0])
    return pickle.loads(content)


def main() -> None:
    """Run tasks until there are no more."""
    source = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a task prints must not get among the answers
    while True:
        try:
            function, item = get(source)
        except EOFError:
            return
        try:
            answer = ("done", function(item))
        except BaseException as error:  # noqa: BLE001 - whoever gave the task is told
            answer = ("failed", _portable(error))
        try:
            put(answers, answer)
        except BrokenPipeError:
            return


def _portable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - errors can be pickled, or not, in many ways
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
