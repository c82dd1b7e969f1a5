"""Names under which classes and functions stand in files that earlier versions wrote.

A checkpoint names what is in it by module. Where a module has moved since, its former name is declared here, and what
reads files of earlier versions (:func:`load`, :func:`loads`) finds it in its present place.
"""

from __future__ import annotations

import io
import pickle
from typing import IO, Any

MOVED = {
    "garcon_backend.batches": "garcon_backend.runs.batches",
    "garcon_backend.merging": "garcon_backend.save_contexts.merging",
    "garcon_backend.probing.containers": "garcon_backend.save_contexts.containers",
    "garcon_backend.runs": "garcon_backend.runs.run",
    "garcon_jupyter.sources": "garcon_jupyter.user_code.source_lines",
    "garcon_jupyter.wire.guests": "garcon_jupyter.user_code.guests",
    "garcon_jupyter.wire.pickling": "garcon_jupyter.user_code.pickling",
}
"""Modules whose names stand in files, as they were called in 0.1.0, and where what they held is now."""


class Unpickler(pickle.Unpickler):
    """Reads what this version or an earlier one has written."""

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of a name, where it stands now."""
        return super().find_class(MOVED.get(module, module), name)


def load(stream: IO[bytes]) -> Any:
    """The value in a file."""
    return Unpickler(stream).load()


def loads(payload: bytes) -> Any:
    """The value of a payload, such as the function that a checkpoint's run applies."""
    return Unpickler(io.BytesIO(payload)).load()
