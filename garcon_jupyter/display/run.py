"""The picture of a run: how far it is, buttons, and what has been recorded."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from garcon_jupyter.client.recordings import Recordings
from garcon_jupyter.client.run import Run, ask, describe
from garcon_jupyter.connection.background import answering
from garcon_jupyter.widgets import RunWidget


def run_picture(run: Run, draw: Callable[[Recordings], Any] | None = None) -> RunWidget:
    """How far a run is; see :meth:`garcon_jupyter.client.run.Run.show`."""

    def poll() -> dict[str, Any]:
        # What was printed is left to whoever waits for the run.
        status = ask(run._model, "poll", run=run.id, prints=run._heard)
        known = {"state": status.state, "fraction": status.fraction, "over": status.over}
        return known | {"words": describe(status)}

    def steer(word: str) -> None:
        getattr(run, word)()

    picture = None if draw is None else lambda: _html(draw(run.recordings()))
    drawn = picture and answering(picture)
    return RunWidget(poll, steer, drawn, f"{run.id} on {run._model.server.name}")


def _html(drawn: Any) -> str:
    """What shows itself, as HTML."""
    for name in ("still", "_repr_html_"):
        if callable(make := getattr(drawn, name, None)) and (made := make()) is not None:
            return str(made)
    return f"<pre>{html.escape(str(drawn))}</pre>"
