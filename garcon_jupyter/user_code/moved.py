"""Modules by the names that earlier versions had for them, in files and in users' own scripts.

A checkpoint names what is in it by module, and a script says ``from garcon_jupyter.tokens import Tokens``. Where a module
has moved since, its former name is declared here. What reads files of earlier versions (:func:`load`, :func:`loads`) finds
it in its present place, and so does an ``import``, with a warning that names that place.
"""

from __future__ import annotations

import io
import pickle
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import IO, Any

MOVED = {
    "garcon_backend.batches": "garcon_backend.runs.batches",
    "garcon_backend.merging": "garcon_backend.save_contexts.merging",
    "garcon_backend.probing.containers": "garcon_backend.save_contexts.containers",
    "garcon_backend.runs": "garcon_backend.runs.run",
    "garcon_jupyter.connection_file": "garcon_jupyter.connection.connection_file",
    "garcon_jupyter.easy": "garcon_jupyter.client.look",
    "garcon_jupyter.encoding": "garcon_jupyter.client.encoding",
    "garcon_jupyter.experiments.lens": "garcon_jupyter.experiments.lenses.readouts",
    "garcon_jupyter.hosts": "garcon_jupyter.servers.hosts",
    "garcon_jupyter.limits": "garcon_jupyter.servers.limits",
    "garcon_jupyter.options": "garcon_jupyter.servers.options",
    "garcon_jupyter.probes": "garcon_jupyter.client.probes",
    "garcon_jupyter.recordings": "garcon_jupyter.client.recordings",
    "garcon_jupyter.registry": "garcon_jupyter.servers.registry",
    "garcon_jupyter.remote_model": "garcon_jupyter.model",
    "garcon_jupyter.resuming": "garcon_jupyter.client.resuming",
    "garcon_jupyter.runs": "garcon_jupyter.client.run",
    "garcon_jupyter.serving": "garcon_jupyter.api",
    "garcon_jupyter.shipping": "garcon_jupyter.client.shipping",
    "garcon_jupyter.snapshots": "garcon_jupyter.model_files.snapshots",
    "garcon_jupyter.sources": "garcon_jupyter.user_code.source_lines",
    "garcon_jupyter.tokens": "garcon_jupyter.client.tokens",
    "garcon_jupyter.values": "garcon_jupyter.widgets.values",
    "garcon_jupyter.wire.guests": "garcon_jupyter.user_code.guests",
    "garcon_jupyter.wire.pickling": "garcon_jupyter.user_code.pickling",
}
"""Modules as they were called in 0.1.0, and where what they held is now: those of files, and those that users import."""


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


class FormerNames(MetaPathFinder):
    """Finds a module by its former name, where no other finder knows one of that name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What is to be loaded for a name, or None for a name that none had."""
        return ModuleSpec(fullname, _Former(MOVED[fullname])) if fullname in MOVED else None


class _Former(Loader):
    """A module that hands on every name that is asked of it, so that a class stays one class."""

    def __init__(self, present: str) -> None:
        self._present = present

    def exec_module(self, module: ModuleType) -> None:
        # Python counts no frame of its own import machinery: this is the line with the import.
        warnings.warn(f"{module.__name__} is now {self._present}.", FutureWarning, stacklevel=2)
        present = import_module(self._present)
        module.__dict__["__getattr__"] = lambda name: getattr(present, name)
        module.__dict__["__doc__"] = present.__doc__


def install() -> None:
    """Let former names be imported in this process; once is enough."""
    if not any(isinstance(finder, FormerNames) for finder in sys.meta_path):
        sys.meta_path.append(FormerNames())
