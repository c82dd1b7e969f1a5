"""A model of this process is loaded, or taken as it is, and can be connected to."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.execution.launch_check import check as launch_check
from garcon_backend.execution.launch_check.check import Checked
from garcon_backend.execution.rank_loading import LoadedRank
from garcon_backend.hook_sites import attention
from garcon_backend.in_process.connection import InProcessConnection
from garcon_backend.in_process.serving import Serving
from garcon_backend.models import loading
from garcon_backend.models.adapters import Adapters
from garcon_backend.models.current_weights import CurrentWeights
from garcon_backend.models.family_files import check_places, read_family
from garcon_backend.probing.rank import Rank
from garcon_backend.process import memory
from garcon_jupyter.libraries import releases
from garcon_jupyter.model_files import snapshots
from garcon_jupyter.model_files.adapters import named
from garcon_jupyter.wire import protocol

FORGET = 3600.0
"""Seconds after which a session without a name, whose connection was closed, is forgotten with what it recorded."""


class ModelHere:
    """A model in this process, for ``garcon.connect``.

    Attributes:
        name: by which persons know it.
        facts: plain facts, as of a server.
    """

    def __init__(self, rank: Rank, name: str, path: str, checked: Checked) -> None:
        loaded = LoadedRank.of(rank, checked)
        self.name, self.facts = name, _facts(loaded, name, path)
        self._key, self._serving = secrets.token_hex(16), Serving(loaded, self.facts)

    def connect(self) -> InProcessConnection:
        """A line to it; :func:`garcon_jupyter.connect` makes a model of that, with a session of its own."""
        return InProcessConnection(self._serving, self._key)

    def __repr__(self) -> str:
        notes = "".join(f"; note: {note}" for note in self.facts["model"]["notes"])
        return f"<model {self.name} in this process: {self.facts['path']}{notes}>"


def open_here(
    source: str | os.PathLike[str] | nn.Module,
    name: str | None = None,
    *,
    dtype: str | None = None,
    device: torch.device | str = "cpu",
    tokenizer: Any = None,
    family: str | None = None,
    adapter: Any = None,
    trust_remote_code: bool = False,
    unchecked: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> ModelHere:
    """Open a model in this process, as a server would have it, without one.

    A server is what a notebook wants: it goes on when the notebook ends, uses several devices, answers while it is busy, and
    what goes wrong there cannot harm the notebook. This is for tests, and to look at one's own code in a debugger.

    Args:
        source: a path as for ``garcon.launch``; or a module, which is put into evaluation mode and frozen, and stays on its
            device.
        name: what it is called; by default the path's base name, or the module's type.
        dtype: to load in; by default the checkpoint's. A module keeps its own.
        device: to load onto.
        tokenizer: of a module; a path has its own.
        family: of the user's own, as of ``garcon.launch``.
        adapter, trust_remote_code: as for ``garcon.launch``.
        unchecked: open a path though its numbers were not held against those of the model's own implementation, which
            is said wherever it is named.
        progress: is told in a line what is going on.

    Raises:
        NotAModel: the path holds no model; says what it is.
        NotAnAdapter: a directory holds no adapter, or one of another model.
        NotTheReference: its numbers would not be those of the model's own implementation.
        BadRequest: an unknown dtype, or `family` names none.

    Examples:
        >>> from garcon_backend.in_process import open_here
        >>> rmodel = garcon.connect(open_here("smollm2"))
        >>> rmodel.forward("Hello, world", logits="last").shape  # [b, V]
        torch.Size([1, 49152])
    """
    attention.register()
    own = read_family(family) if family else None
    if isinstance(source, nn.Module):
        model, path = source.eval().requires_grad_(False), type(source).__name__
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
    else:
        dtype = None if dtype is None else str(dtype).removeprefix("torch.")
        for line in releases.untested():
            progress(f"{line}; going on")
        trusted = trust_remote_code
        directory = snapshots.resolve(source, progress, trust_remote_code=trusted).path
        model = loading.load(directory, Mesh.solo(device), dtype, progress, trusted, own)
        tokenizer, path = loading.load_tokenizer(directory, progress, trusted), str(directory)
    mesh = Mesh.solo(device)
    adapters = Adapters.load(named(adapter), model, mesh, progress)
    weights = None
    if not isinstance(source, nn.Module):
        weights = CurrentWeights(Path(path), dtype, trust_remote_code, own)
    rank = Rank.around(
        *(model, mesh, tokenizer), attended=True, adapters=adapters, family=own, weights=weights
    )
    if own:
        check_places(rank.bound)
    checked = launch_check.OWN_MODULE
    if not isinstance(source, nn.Module):
        checked = launch_check.checked(rank, Path(path), unchecked, progress)
    rank.contexts.quota.set_limit(memory.available_bytes(device) // 2)
    return ModelHere(rank, name or Path(path).name, path, checked)


def _facts(loaded: LoadedRank, name: str, path: str) -> dict[str, Any]:
    """What a server says of itself, of this process."""
    return {
        "name": name,
        "path": path,
        "settings": {},
        "degrees": {"tp": 1, "pp": 1, "dp": 1},
        "model": loaded.model_facts,
        "ranks": [loaded.facts],
        "epoch": 0,
        "supervisor": os.getpid(),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "slurm_job": None,
        "idle_timeout": 0.0,
        "forget": FORGET,
        "launched": time.time(),
        "protocol": protocol.PROTOCOL,
        "python": protocol.python_version(),
    }
