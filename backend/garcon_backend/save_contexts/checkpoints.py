"""Checkpoints of runs: what recorders hold, written together with the position in the data.

Every rank writes the contexts of the run into a file of its own, between two batches, so that all files and the
position are of one moment. Only when all are written does rank 0 put down the position beside them, and only then
is the checkpoint before it removed: there is always one that is whole.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

from garcon_backend.save_contexts.contexts import Contexts, Exported
from garcon_jupyter.errors import BadData
from garcon_jupyter.user_code import moved, pickling
from garcon_jupyter.wire import requests as wire


def write(contexts: Contexts, rank: int, request: wire.Checkpoint) -> None:
    """Write what this rank holds.

    Raises:
        BadData: the disk is full, or the directory cannot be written.
    """
    directory = Path(request.directory)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = contexts.export(request.session, request.contexts)
        for values, _ in held.values():
            for value in values.values():
                if callable(settle := getattr(type(value), "settle", None)):
                    settle(value)  # its own files, which the checkpoint counts on
        put(directory / f"rank-{rank}", held)
    except OSError as error:
        raise unwritten(directory, error) from None


def read(rank: int, request: wire.Restore) -> Exported:
    """What this rank held at a checkpoint, or empty contexts.

    Raises:
        BadData: the checkpoint cannot be read.
    """
    nothing: Exported = {ref: ({}, {}) for ref in request.contexts}
    if request.directory is None:
        return nothing
    return {**nothing, **get(Path(request.directory) / f"rank-{rank}")}


def unwritten(directory: Path, error: OSError) -> BadData:
    """The error for a checkpoint that could not be written."""
    return BadData(
        f"The checkpoint in {directory} could not be written: {error.strerror or error}.",
        "Make room, or give checkpoint= another directory; what was recorded is still there.",
    )


def put(file: Path, value: Any) -> None:
    """Write a value into a file (0600), whole or not at all."""
    temporary = file.with_suffix(".writing")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            pickling.Pickler(stream).dump(value)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def get(file: Path) -> Any:
    """The value of a file.

    Raises:
        BadData: there is none.
    """
    try:
        with file.open("rb") as stream:
            return moved.load(stream)
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise BadData(
            f"{file} is no part of a checkpoint: {error}.", "Begin the run anew."
        ) from None


def remove(directory: Path) -> None:
    """Remove a checkpoint, if it is there."""
    shutil.rmtree(directory, ignore_errors=True)
