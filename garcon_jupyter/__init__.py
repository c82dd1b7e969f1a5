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

# A rank of a server imports a few rooms of this package, and none of the notebook's: so a name is imported from its
# room when it is first asked for, and importing the package alone costs nothing.

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import ERRORS
from garcon_jupyter.user_code import moved

if TYPE_CHECKING:
    from garcon_jupyter import errors as errors
    from garcon_jupyter import experiments as experiments
    from garcon_jupyter import recorders as recorders
    from garcon_jupyter import training as training
    from garcon_jupyter import widgets as widgets
    from garcon_jupyter.activation_stores import ActivationStore, open_store
    from garcon_jupyter.api import connect, easy_garcon, launch, launch_and_connect
    from garcon_jupyter.atlas import Atlas, merge_atlases, open_atlas
    from garcon_jupyter.client.jobs import jobs
    from garcon_jupyter.client.probes import Probe, ProbePoint, ProbePoints
    from garcon_jupyter.client.recordings import Handle, Recording, Recordings
    from garcon_jupyter.client.resuming import Session, sessions
    from garcon_jupyter.client.shipping import ship
    from garcon_jupyter.client.tokens import Generated, Tokens
    from garcon_jupyter.errors import *  # noqa: F403 - for type checkers: garcon.UnknownPoint
    from garcon_jupyter.exchanges.shuffle import shuffle
    from garcon_jupyter.experiments.connectivity.connectome.files import open_connectome
    from garcon_jupyter.fleets.fleet import Fleet
    from garcon_jupyter.fleets.launching import fleet
    from garcon_jupyter.model import RemoteModel
    from garcon_jupyter.servers.registry import servers
    from garcon_jupyter.servers.server import Server
    from garcon_jupyter.widgets.values import Values

__version__ = "0.1.0"

_ROOMS = ("errors", "experiments", "recorders", "training", "widgets")
"""Rooms that users open themselves: ``garcon.recorders.TopK``."""

_HOMES = {
    "ActivationStore": "activation_stores",
    "Atlas": "atlas",
    "Fleet": "fleets.fleet",
    "Generated": "client.tokens",
    "Handle": "client.recordings",
    "Probe": "client.probes",
    "ProbePoint": "client.probes",
    "ProbePoints": "client.probes",
    "Recording": "client.recordings",
    "Recordings": "client.recordings",
    "RemoteModel": "model",
    "Server": "servers.server",
    "Session": "client.resuming",
    "Tokens": "client.tokens",
    "Values": "widgets.values",
    "connect": "api",
    "easy_garcon": "api",
    "fleet": "fleets.launching",
    "jobs": "client.jobs",
    "launch": "api",
    "launch_and_connect": "api",
    "merge_atlases": "atlas",
    "open_atlas": "atlas",
    "open_connectome": "experiments.connectivity.connectome.files",
    "open_store": "activation_stores",
    "servers": "servers.registry",
    "sessions": "client.resuming",
    "ship": "client.shipping",
    "shuffle": "exchanges.shuffle",
}
"""Where each public name is at home; the errors, whose names are :data:`ERRORS`, are all in one file."""


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in ERRORS:
        found = ERRORS[name]
    elif name in _HOMES:
        import_module(f"{__name__}.display")  # so that whatever a user has can show itself
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    setattr(sys.modules[__name__], name, found)
    return found


class _Package(ModuleType):
    """The package, in which no room or module hides a function of the same name.

    Importing ``garcon_jupyter.servers.registry`` makes Python set ``servers`` here to the room; users know a function
    by that name, as they know ``launch``.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        """By name, as any module travels with the functions that use it."""
        return import_module, (self.__name__,)


sys.modules[__name__].__class__ = _Package
moved.install()


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS, "__doc__", "__version__"])


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
    "ActivationStore",
    "Atlas",
    "Fleet",
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
    "fleet",
    "jobs",
    "launch",
    "launch_and_connect",
    "merge_atlases",
    "open_atlas",
    "open_connectome",
    "open_store",
    "servers",
    "sessions",
    "ship",
    "shuffle",
]
