"""What request handlers work with on this rank."""

from __future__ import annotations

from garcon_backend.execution.admission import Admission
from garcon_backend.execution.code_loading import CodeLoader
from garcon_backend.execution.parameters import Parameters
from garcon_backend.execution.passes import Passes
from garcon_backend.execution.probe_loading import ProbeLoader
from garcon_backend.execution.recorder_admission import RecorderAdmission
from garcon_backend.execution.training.trainings import Trainings
from garcon_backend.models.sharding import stage_layers
from garcon_backend.probing.rank import Rank


class Tools:
    """Made once for a rank; handlers are made anew for each request.

    Attributes:
        rank: what this rank is.
        code: shipped functions.
        parameters: weights by name.
        probes: probes, made ready.
        admission: whether a pass will fit.
        room: whether what recorders will keep has room.
        passes: the model run forward and backward.
        trainings: dictionaries in training.
    """

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self.code = CodeLoader(rank.interrupts)
        self.parameters = Parameters(rank.mesh, rank.bound)
        self.probes = ProbeLoader(rank, self.code, self.parameters)
        layers = stage_layers(rank.model, rank.mesh)
        self.admission = Admission(rank.mesh, rank.model, len(layers), rank.bound.catalog.sizes)
        self.recorder_admission = RecorderAdmission(rank)
        self.passes = Passes(rank)
        self.trainings = Trainings(rank)
