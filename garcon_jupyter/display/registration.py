"""What draws what: said once, when this room is imported.

What draws is imported when something is drawn, so that to register it costs nothing: no table, no widget and no torch.
An atlas is registered by its name, as all that a launch imports before the first process delays it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from garcon_jupyter.certificate.result import Certificate
from garcon_jupyter.client import display_hooks
from garcon_jupyter.client.client import Client
from garcon_jupyter.client.look import Look
from garcon_jupyter.client.probes import ProbePoint, ProbePoints
from garcon_jupyter.client.recordings import Handle, Recording, Recordings
from garcon_jupyter.client.run import Run

ATLAS = "garcon_jupyter.atlas.files"
CONNECTOME = "garcon_jupyter.experiments.connectivity.connectome.files.Connectome"
EXPERIMENT = "garcon_jupyter.experiments.result.ExperimentResult"
TRAINING = "garcon_jupyter.client.dictionary_training.DictionaryTraining"
RECORD = "garcon_jupyter.training.opened.TrainingRecord"
EXPLAINED = "garcon_jupyter.explanations.results.ExplainedUnits"
DIRECTION = "garcon_jupyter.experiments.directions.direction.Direction"


def _later(module: str, function: str) -> Callable[..., Any]:
    """A function of this room, whose module is imported when it is first called."""

    def draw(*arguments: Any) -> Any:
        return getattr(import_module(f"{__package__}.{module}"), function)(*arguments)

    return draw


def register() -> None:
    """Let everything below show itself."""
    display_hooks.register(Certificate, html=_later("certificate", "html"))
    display_hooks.register(Client, html=_later("html", "model"))
    display_hooks.register(ProbePoint, html=_later("html", "point"))
    display_hooks.register(ProbePoints, html=_later("html", "points"))
    display_hooks.register(Recordings, html=_later("html", "recordings"))
    display_hooks.register(Recording, html=_later("html", "recording"))
    display_hooks.register(Handle, html=_later("html", "handle"))
    display_hooks.register(Look, show=_later("points", "show_look"))
    display_hooks.register(
        EXPERIMENT, show=_later("experiments", "show"), html=_later("experiments", "html")
    )
    display_hooks.register(EXPLAINED, html=_later("explanations", "html"))
    display_hooks.register(DIRECTION, show=_later("directions", "show"))
    display_hooks.register(CONNECTOME, show=_later("connectome", "show"))
    display_hooks.register(Run, show=_later("run", "run_picture"))
    display_hooks.register(
        RECORD,
        show=_later("training_record", "overview"),
        where=_later("training_record", "where"),
        neuron=_later("training_record", "neuron"),
    )
    display_hooks.register(TRAINING, show=_later("dictionary_training", "training_picture"))
    display_hooks.register(
        f"{ATLAS}.Record", show=_later("atlas", "show"), probe_cell=_later("atlas", "probe_cell")
    )
    display_hooks.register(f"{ATLAS}.Atlas", browse=_later("atlas", "browse"))
