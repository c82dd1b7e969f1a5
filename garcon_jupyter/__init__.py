"""Garçon for Jupyter: look inside language models that are too large for one machine.

    import garcon_jupyter as garcon

    rmodel = garcon.launch_and_connect("smollm2")

    def save_tensor(save_ctx, tensor):
        save_ctx.tensor = tensor

    point = rmodel.probe_points["layers.4.mlp.post_activation"]
    rmodel.forward(rmodel.encode("Hello, world"), probes=[point.probe(save_tensor)])
    rmodel.recordings()["layers.4.mlp.post_activation"].tensor

After the interface that Anthropic described in 2021 (https://transformer-circuits.pub/2021/garcon/).
"""

from __future__ import annotations

from typing import Any

from garcon_jupyter.api import connect, easy_garcon, launch, launch_and_connect
from garcon_jupyter.atlas import Atlas, merge_atlases, open_atlas
from garcon_jupyter.client.client import RemoteModel
from garcon_jupyter.client.probes import Probe, ProbePoint, ProbePoints
from garcon_jupyter.client.recordings import Handle, Recording, Recordings
from garcon_jupyter.client.resuming import Session, sessions
from garcon_jupyter.client.shipping import ship
from garcon_jupyter.client.tokens import Generated, Tokens
from garcon_jupyter.display.values import Values
from garcon_jupyter.errors import *  # noqa: F403 - one import for users: garcon.UnknownPoint
from garcon_jupyter.errors import ERRORS
from garcon_jupyter.servers.registry import Server, servers

__version__ = "0.1.0"


def load_ipython_extension(shell: Any) -> None:
    """What ``%load_ext garcon_jupyter`` calls."""
    from garcon_jupyter.magics import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """What ``%unload_ext garcon_jupyter`` calls."""
    from garcon_jupyter.magics import unload

    unload(shell)


__all__ = [
    *ERRORS,
    "Atlas",
    "Generated",
    "Handle",
    "Probe",
    "ProbePoint",
    "ProbePoints",
    "Recording",
    "Recordings",
    "RemoteModel",
    "Server",
    "Session",
    "Tokens",
    "Values",
    "connect",
    "easy_garcon",
    "launch",
    "launch_and_connect",
    "merge_atlases",
    "open_atlas",
    "servers",
    "sessions",
    "ship",
]
