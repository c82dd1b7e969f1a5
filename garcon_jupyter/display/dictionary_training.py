"""The picture of a training: its curves, how far it is, and buttons."""

from __future__ import annotations

from typing import Any

from garcon_jupyter.client.dictionary_training import DictionaryTraining, said, summary
from garcon_jupyter.client.run import ask
from garcon_jupyter.connection.background import answering
from garcon_jupyter.widgets import RunWidget, svg
from garcon_jupyter.widgets.curves import NamedCurve, curves
from garcon_jupyter.wire.runs import RunStatus


def training_picture(training: DictionaryTraining) -> RunWidget:
    """How a training goes; see :meth:`garcon_jupyter.client.dictionary_training.DictionaryTraining.show`."""
    run = training.run

    def look() -> RunStatus:
        status: RunStatus = ask(run._model, "poll", run=run.id, prints=run._heard)
        return status

    def poll() -> dict[str, Any]:
        status = look()
        known = {"state": status.state, "fraction": status.fraction, "over": status.over}
        return known | {"words": summary(status)}

    def draw() -> str:
        return still(training, look())

    def steer(word: str) -> None:
        getattr(run, word)()

    widget = RunWidget(poll, steer, answering(draw), f"{run.id} on {run._model.server.name}")
    widget.drawn = draw()
    return widget


def still(training: DictionaryTraining, status: RunStatus) -> str:
    """The curves as HTML that needs nothing."""
    title, words = said(training.settings), summary(status)
    return svg.figure(curves(named(status), title, words), title, words)


def named(status: RunStatus) -> list[NamedCurve]:
    """The curves of a training by name, over tokens."""
    told = status.training
    points = told.points if told is not None else ()
    measured = told.measured if told is not None else ()
    tokens = [point.tokens for point in points]
    return [
        NamedCurve("variance unexplained", tokens, [p.unexplained for p in points], percent=True),
        NamedCurve("L0", tokens, [p.l0 for p in points]),
        NamedCurve("dead latents", tokens, [p.dead for p in points]),
        NamedCurve(
            "loss recovered",
            [at for at, _ in measured],
            [found.recovered for _, found in measured],
            percent=True,
        ),
    ]
