"""A training of a dictionary on the server, seen from the notebook."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client import display_hooks
from garcon_jupyter.client.run import Run
from garcon_jupyter.client.storing import data_said, options_said
from garcon_jupyter.errors import BadData, BadRequest, UnknownName
from garcon_jupyter.exchanges.planning import bytes_said
from garcon_jupyter.wire import requests as wire
from garcon_jupyter.wire.dictionary_training import (
    CROSS_LAYER,
    CROSSCODER,
    KINDS,
    LossRecovered,
    TrainingPoint,
    TrainingSettings,
    TrainingStatus,
)
from garcon_jupyter.wire.runs import Data, RunStatus

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

CHECKPOINTS = ".run"
"""The directory, in that of a dictionary, with the checkpoints of its training; gone when it is written."""

ASKED = "asked.json"
"""What was asked for, beside them."""

CONFIGS = ("cfg.json", "config.json")
"""By which a dictionary that is there already is known."""

SEVERAL = (CROSSCODER, CROSS_LAYER)
"""Kinds of several points."""


class DictionaryTraining:
    """A dictionary in training, on the server.

    It goes on when the notebook is closed; ``rmodel.trainings()`` finds it again.

    Attributes:
        run: by which it is paused, resumed and cancelled.
        settings: what is trained.
        path: the directory that the dictionary is written to, on the server's host.
    """

    def __init__(self, model: Client, run: Run, settings: TrainingSettings, path: str) -> None:
        self._model, self.run, self.settings, self.path = model, run, settings, path

    @property
    def status(self) -> RunStatus:
        """How far it is now."""
        return self.run.poll()

    @property
    def told(self) -> TrainingStatus:
        """Curve, measurements and notes, as of the last look."""
        return self.run.status.training or TrainingStatus(self.settings, self.path)

    @property
    def curves(self) -> tuple[TrainingPoint, ...]:
        """The curve until now: each point the mean over the steps since the one before."""
        self.run.poll()
        return self.told.points

    @property
    def measured(self) -> tuple[tuple[int, LossRecovered], ...]:
        """Each measurement of what the model loses with the dictionary in its place, with the tokens trained on before."""
        self.run.poll()
        return self.told.measured

    def wait(self, show: bool = True) -> DictionaryTraining:
        """Wait until it is written, or stopped; an interrupt cancels it after the batch that it is at.

        Raises:
            Interrupted: it was cancelled; :meth:`resume` lets it go on.
            GarconError: what it failed with.
        """
        self.run.wait(show)
        if show:
            for note in self.told.notes:
                print(note)
        return self

    def stop(self) -> DictionaryTraining:
        """Let it stop after the batch that it is at; :meth:`resume` lets it go on, :meth:`write` writes what it has learnt."""
        self.run.pause()
        return self

    def resume(self) -> DictionaryTraining:
        """Let it go on after :meth:`stop`, an interrupt or a failure."""
        self.run.resume()
        return self

    def discard(self) -> None:
        """End it, and let the server forget what it has learnt."""
        if not self.run.poll().over:
            self.run.cancel()
        self._keep("forget", None)

    def write(self, path: str | Path | None = None) -> str:
        """Write what it has learnt so far, as SAELens has it; its end does this by itself.

        Args:
            path: a directory on the server's host; None for :attr:`path`.

        Returns:
            The directory.

        Raises:
            BadRequest: it has learnt nothing yet, or is not in training any longer.
            BadData: the disk does not take it.
        """
        into = self.path if path is None else str(Path(path).expanduser().absolute())
        self._keep("dictionary", into)
        return into

    def _keep(self, what: Any, directory: str | None) -> None:
        asked = wire.KeepTraining(
            training=self.run.id, settings=self.settings, what=what, directory=directory
        )
        self._model._run(asked)

    def show(self) -> Any:
        """The curves, with buttons to pause, resume and cancel; they follow the training while they are in sight."""
        return display_hooks.drawn(self, "show")

    def __repr__(self) -> str:
        return f"<training of {said(self.settings)}: {summary(self.run.status)}>"


def said(settings: TrainingSettings) -> str:
    """What is trained, in words."""
    sides = dict.fromkeys(_side_said(side) for side in zip(*settings.ends, strict=True))
    each = " of each layer" if settings.kind == CROSS_LAYER else ""
    return (
        f"a {settings.kind} dictionary of {settings.width:,} latents{each} at {' → '.join(sides)}"
    )


def _side_said(points: tuple[str, ...]) -> str:
    return points[0] if len(points) == 1 else f"{points[0]} to {points[-1]}"


def summary(status: RunStatus) -> str:
    """How a training is, on one line."""
    told, parts = status.training, [status.state, f"{status.tokens:,} tokens"]
    if told is not None and told.points:
        last = told.points[-1]
        parts += [f"{last.unexplained:.1%} unexplained", f"L0 {last.l0:.1f}", f"{last.dead:,} dead"]
    if (
        told is not None
        and told.measured
        and math.isfinite(recovered := told.measured[-1][1].recovered)
    ):
        parts.append(f"{recovered:.1%} of the loss recovered")
    return ", ".join(parts)


# -- what is asked for --------------------------------------------------------------------------------


def settings_of(
    ends: Sequence[tuple[str, str]],
    kind: str,
    width: int,
    model: str,
    options: Mapping[str, Any],
) -> TrainingSettings:
    """What to train, checked.

    Args:
        ends: each point that is read, with the one that is to be written for it.
        options: other attributes of the settings; None for what they have by themselves.

    Raises:
        UnknownName: there is no such kind.
        BadRequest: a number makes no sense, or a kind does not go from one point to another.
    """
    if kind not in KINDS:
        raise UnknownName.among(
            "kind of dictionary", str(kind), KINDS, f"There are {', '.join(KINDS)}."
        )
    given = {name: value for name, value in options.items() if value is not None}
    given["buffer_bytes"] = bytes_said(given.pop("buffer", 128_000_000))
    given["left_out"] = tuple(given.pop("without", ("first",)))
    given.setdefault("lr", 2e-4 * math.sqrt(16384 / max(1, width)))
    given.setdefault("dead_after", 250 * int(given.get("batch", 2048)))
    reads, writes = ends[-1]
    _check_points(kind, ends)
    if kind not in SEVERAL:
        _check_kind(kind, reads, writes)
    widths = _widths(kind, width, tuple(given.pop("widths", ())))
    several = tuple(ends) if kind in SEVERAL else ()
    settings = TrainingSettings(
        kind, width, reads, writes, model=model, widths=widths, several=several, **given
    )
    _check_numbers(settings)
    return settings


def _check_points(kind: str, ends: Sequence[tuple[str, str]]) -> None:
    """Refuse a kind that is of other points."""
    alike = all(reads == writes for reads, writes in ends)
    if kind in SEVERAL and len(ends) < 2:
        raise BadRequest(
            f"A {kind} dictionary is of several points, and one was given.",
            'Give a pattern, such as "layers.4-6.resid_post".',
        )
    if kind not in SEVERAL and len(ends) > 1:
        raise BadRequest(
            f"A {kind} dictionary is of one point, and {len(ends)} were given.",
            f"Train them one by one, or kind={' or '.join(map(repr, SEVERAL))}.",
        )
    if kind == CROSSCODER and not alike:
        raise BadRequest(
            "A crosscoder writes what it reads, and other points were given to be written.",
            'Give the points alone, or train kind="cross-layer".',
        )
    if kind == CROSS_LAYER and alike:
        raise BadRequest(
            "A cross-layer transcoder goes from points to others, and no others were given.",
            'Give both, such as ("layers.4-6.mlp.in", "layers.4-6.mlp.out"), or train kind="crosscoder".',
        )


def _check_kind(kind: str, reads: str, writes: str) -> None:
    if reads != writes and kind in ("topk", "gated"):
        raise BadRequest(
            f"A {kind} dictionary from one point to another has no layout in SAELens.",
            'Train kind="transcoder", which is written as a jumprelu_transcoder.',
        )
    if reads == writes and kind == "transcoder":
        raise BadRequest(
            f"A transcoder goes from one point to another, and {reads} alone was given.",
            'Give two, such as ("layers.4.mlp.in", "layers.4.mlp.out"), or train kind="batchtopk".',
        )


def _widths(kind: str, width: int, given: tuple[int, ...]) -> tuple[int, ...]:
    """The parts of a matryoshka dictionary: a sixteenth, a quarter and all, where nobody said."""
    if kind != "matryoshka":
        if given:
            raise BadRequest(f"A {kind} dictionary has no parts.", "Leave widths= out.")
        return ()
    parts = given or tuple(sorted({max(1, width // 16), max(1, width // 4), width}))
    if parts[-1] != width or list(parts) != sorted(set(parts)) or parts[0] < 1:
        raise BadRequest(
            f"widths={parts} are no growing parts of {width:,} latents.",
            "Give ascending numbers, the last of them the width.",
        )
    return parts


def _check_numbers(settings: TrainingSettings) -> None:
    for name in ("width", "k", "batch", "buffer_bytes", "dead_after"):
        _check(name, getattr(settings, name), 1)
    for name in ("seed", "warm_up", "measured"):
        _check(name, getattr(settings, name), 0)
    for name in ("lr", "aux", "sparsity"):
        value = getattr(settings, name)
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not 0 <= value < math.inf
        ):
            raise BadRequest(f"{name}={value!r} is no such number.", "Give one of at least 0.")
    if settings.k > settings.width:
        raise BadRequest(
            f"k={settings.k:,} latents cannot pass of {settings.width:,}.", "Give a smaller k=."
        )


def _check(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadRequest(
            f"{name}={value!r} is no such number.", f"Give a whole one of at least {least}."
        )


# -- where it was left ----------------------------------------------------------------------------------


def resumable(
    out: Path, settings: TrainingSettings, data: Data, options: Mapping[str, Any]
) -> bool:
    """Whether an earlier call left a checkpoint of the same training; what was asked for is put down otherwise.

    Raises:
        BadData: the directory has another training, or a dictionary that is done.
    """
    about = {
        # As it was put down before there were several points.
        "settings": options_said({n: v for n, v in vars(settings).items() if n != "several" or v}),
        "data": data_said(data),
        "run": options_said(options),
    }
    about = json.loads(json.dumps(about))
    file = out / CHECKPOINTS / ASKED
    if file.exists() and (out / CHECKPOINTS / "position").exists():
        former = json.loads(file.read_text(encoding="utf-8"))
        if former != about:
            changed = [
                f"{name} was {former[part].get(name)!r}"
                for part in about
                for name in {**former[part], **about[part]}
                if former[part].get(name) != about[part].get(name)
            ]
            raise BadData(
                f"{out} has another training, which was cut short: {', '.join(changed[:3])}.",
                "Give another out=, or the same call to go on with it.",
            )
        return True
    if any((out / config).exists() for config in CONFIGS):
        raise BadData(
            f"{out} has a dictionary already.",
            f"Load it with rmodel.dictionaries.load({str(out)!r}), or give another out=.",
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(about), encoding="utf-8")
    return False
