"""A dictionary in training put down, taken up again, written for others, or forgotten."""

from __future__ import annotations

from pathlib import Path

from garcon_backend.dictionaries.training import write
from garcon_backend.execution.requests.handler import RequestHandler
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.wire import requests as wire

WHAT = ("checkpoint", "restore", "dictionary", "forget")


class KeepTrainingHandler(RequestHandler[wire.KeepTraining]):
    """Each rank that trains keeps its own latents; of the files for others the first one writes all."""

    kind = wire.KeepTraining

    def prepare(self) -> None:
        request, trainings = self.request, self.tools.trainings
        if request.what not in WHAT:
            raise BadRequest(
                f"A training cannot be asked to {request.what!r}.", f"Known are {', '.join(WHAT)}."
            )
        if request.what in ("checkpoint", "dictionary"):
            if request.directory is None:
                raise BadRequest("Nobody said where to write.", "Give a directory.")
            trainings.existing(request.session, request.training, request.settings)

    def run(self) -> None:
        request, trainings = self.request, self.tools.trainings
        key = request.session, request.training
        if request.what == "forget" or request.directory is None:
            trainings.forget(*key)
        elif request.what == "restore":
            trainings.take_up(*key, request.settings, request.directory)
        elif (trainer := trainings.existing(*key, request.settings)) is not None:
            if request.what == "checkpoint":
                trainings.put_down(trainer, Path(request.directory))
            else:
                write(trainer, request.directory)
