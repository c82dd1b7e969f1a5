"""The dictionaries in training on a rank, by session and run."""

from __future__ import annotations

import math
from pathlib import Path

from garcon_backend.dictionaries.training import Trainer
from garcon_backend.dictionaries.training.trainer import needed
from garcon_backend.probing.point_places import site_here
from garcon_backend.probing.rank import Rank
from garcon_backend.process import memory
from garcon_backend.save_contexts import checkpoints
from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import BadRequest, DoesNotFit
from garcon_jupyter.points import Address, PointSpec
from garcon_jupyter.wire.dictionary_training import TrainingSettings


class Trainings:
    """The trainers of one rank.

    The ranks that have the points train, of the first replica: each its own latents. Others hold nothing.
    """

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._trainers: dict[tuple[str, str], Trainer] = {}

    def check(self, session: str, training: str, settings: TrainingSettings) -> None:
        """Refuse what cannot be trained here, before anything runs.

        Raises:
            UnknownPoint: there is no such point.
            BadRequest: it has no value for each token, points are on different ranks, or several have not as many units each.
            DoesNotFit: there is no room for it, with the bytes.
        """
        points = self.points(settings)
        here = [site_here(self._rank, address) is not None for address in points]
        if any(here) and not all(here):
            raise BadRequest(
                f"{points[0].name} and {points[-1].name} are on different stages of the pipeline, and one rank has to see all of them.",
                "Serve the model with a smaller pp, or train between points of one layer.",
            )
        self._check_widths(settings)
        if (session, training) in self._trainers or not self.trains_here(settings):
            return
        need = needed(settings, *self.widths(settings), self._rank.mesh.tp.size)
        there = memory.left(self._rank.mesh.device)
        if need > there:
            raise DoesNotFit(
                f"A dictionary of {settings.width:,} latents in training needs {sized(need)} on a rank, of which the buffer is "
                f"{sized(settings.buffer_bytes)}; {sized(there)} are there.",
                "Give a smaller width= or buffer=.",
            )

    def _check_widths(self, settings: TrainingSettings) -> None:
        catalog = self._rank.bound.catalog
        for side in zip(*settings.ends, strict=True):
            each = {name: self.width(catalog.point(name)) for name in side}
            if len(set(each.values())) > 1:
                told = ", ".join(f"{name} {width}" for name, width in each.items())
                raise BadRequest(
                    f"The points of a dictionary of several have as many units each, and these have {told}.",
                    "Train on points that are alike, such as layers.4-6.resid_post.",
                )

    def points(self, settings: TrainingSettings) -> list[Address]:
        """The points that are read, and those that are written, each once.

        Raises:
            UnknownPoint: there is no such point.
            BadRequest: it has no value for each token.
        """
        catalog = self._rank.bound.catalog
        found = [catalog.point(name) for name in settings.points]
        for address in found:
            dims = address.spec.dims if isinstance(address.spec, PointSpec) else ()
            if dims[:2] != ("b", "p") or len(dims) < 3 or address.expert is not None:
                raise BadRequest(
                    f"{address.name} is [{', '.join(dims)}], not one value for each token of the data.",
                    "Train on points of shape [b, p, …].",
                )
        return found

    def width(self, address: Address) -> int:
        """Numbers that a point has for a token."""
        return math.prod(int(size) for size in self._rank.bound.catalog.shape(address)[2:])

    def widths(self, settings: TrainingSettings) -> tuple[int, int]:
        """Numbers of a row that is read, and of one that is written, at all points."""
        catalog = self._rank.bound.catalog
        read, written = (
            sum(self.width(catalog.point(name)) for name in side)
            for side in zip(*settings.ends, strict=True)
        )
        return read, written

    def trains_here(self, settings: TrainingSettings) -> bool:
        """Whether this rank holds some of the latents."""
        first = self.points(settings)[0]
        return self._rank.mesh.replica == 0 and site_here(self._rank, first) is not None

    def of(self, session: str, training: str, settings: TrainingSettings) -> Trainer | None:
        """The trainer of a run, made where there is none yet; None on ranks that do not train."""
        if not self.trains_here(settings):
            return None
        found = self._trainers.get((session, training))
        if found is None:
            mesh = self._rank.mesh
            found = Trainer(settings, *self.widths(settings), mesh.tp, mesh.device)
            self._trainers[session, training] = found
        return found

    def existing(self, session: str, training: str, settings: TrainingSettings) -> Trainer | None:
        """The trainer of a run; None on ranks that do not train.

        Raises:
            BadRequest: it is not, or no longer, in training.
        """
        found = self._trainers.get((session, training))
        if found is None and self.trains_here(settings):
            raise BadRequest(
                f"{training} is not in training any longer.",
                "What it learnt is where it was written; rmodel.train_dictionary() begins another.",
            )
        return found

    def put_down(self, trainer: Trainer, directory: Path) -> None:
        """Write the state of a trainer into a directory.

        Raises:
            BadData: the disk does not take it.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            checkpoints.put(self._file(directory), trainer.state())
        except OSError as error:
            raise checkpoints.unwritten(directory, error) from None

    def take_up(
        self, session: str, training: str, settings: TrainingSettings, directory: str
    ) -> None:
        """Let the trainer of a run be as it was when it was written.

        Raises:
            BadData: the checkpoint cannot be read.
        """
        if not self.trains_here(settings):
            return
        tensors, numbers = checkpoints.get(self._file(Path(directory)))
        self.forget(session, training)
        trainer = self.of(session, training, settings)
        assert trainer is not None
        trainer.restore(tensors, numbers)

    def _file(self, directory: Path) -> Path:
        return directory / f"training-{self._rank.mesh.rank}"

    def forget(self, session: str, training: str) -> None:
        """Let go of a trainer, if it is there."""
        self._trainers.pop((session, training), None)

    def drop(self, session: str) -> None:
        """Let go of all trainers of a session."""
        self._trainers = {key: value for key, value in self._trainers.items() if key[0] != session}
