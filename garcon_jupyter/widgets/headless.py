"""Notebooks that run where nobody looks: nbclient, nbconvert, papermill.

Whoever looks at a picture sees it fill while the next cells run. A notebook that is executed and saved takes of each
output what has come when its cell ends, or, of later cells, while one of them runs; after the last cell nothing is taken
any more. So there a cell that leaves pictures unfinished ends when they are whole, or when they had their time, which is
told then.

That somebody looks is said by what is in the cell's request (JupyterLab, Notebook and VS Code tell which cell it is;
nbclient and what is built on it tell nothing), or by a picture in a browser, which sends word when it is drawn.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Protocol

PATIENCE = float(os.environ.get("GARCON_DRAWING_TIME", "60"))
"""Seconds that a cell waits for its pictures where nobody looks."""


class Drawn(Protocol):
    """A picture, as much of it as is waited for."""

    worker: Any  # a Worker, made when it is first asked for
    busy: Any

    def refresh_still(self) -> None:
        """Put what is seen now in the place of what was displayed."""

    def send_state(self) -> None:
        """Send what the widget is now to the page."""


class _Displayed:
    """What was displayed and may still be drawn."""

    def __init__(self) -> None:
        self.shell: Any = None
        self.watched = False
        self.pictures: list[Drawn] = []
        self.given_up: list[Drawn] = []

    def shown(self, picture: Drawn, shell: Any) -> None:
        if not any(picture is one for one in self.pictures):
            self.pictures.append(picture)
        if self.shell is None:
            self.shell = shell
            shell.events.register("post_run_cell", self.after_cell)

    def after_cell(self, _result: Any = None) -> None:
        """At the end of a cell: wait for what it leaves behind, if nobody looks."""
        if self.watched or _asked_by_somebody(self.shell):
            self.pictures.clear()
            return
        self._take_late_ones()
        end = time.monotonic() + PATIENCE
        try:
            for picture in self.pictures:
                if not picture.worker.wait(max(0.0, end - time.monotonic())):
                    self._give_up(picture)
        except KeyboardInterrupt:
            self.given_up += [picture for picture in self.pictures if picture.busy]
        # Drawns that are whole may be drawn anew: those that answer a change in a later cell.
        self.pictures = [p for p in self.pictures if not any(p is late for late in self.given_up)]

    def _give_up(self, picture: Drawn) -> None:
        self.given_up.append(picture)
        picture.refresh_still()
        print(
            f"[garcon] {picture!r} is saved as it is, as it takes longer than {PATIENCE:.3g} seconds. "
            "Its wait() waits longer.",
            file=sys.stderr,
        )

    def _take_late_ones(self) -> None:
        """What was finished between two cells, when nothing is taken."""
        for picture in [picture for picture in self.given_up if not picture.worker.busy]:
            self.given_up = [late for late in self.given_up if late is not picture]
            self.pictures.append(picture)
            picture.refresh_still()
            picture.send_state()


_DISPLAYED = _Displayed()


def shown(picture: Drawn) -> None:
    """A picture was displayed; call from the thread that did it."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is not None:
        _DISPLAYED.shown(picture, shell)


def watched() -> None:
    """Somebody looks at the pictures of this kernel."""
    _DISPLAYED.watched = True


def _asked_by_somebody(shell: Any) -> bool:
    """Whether the cell that runs was asked for by a page, which says more of it than its code."""
    kernel = getattr(shell, "kernel", None)
    if kernel is None:  # a terminal shows no picture
        return True
    return bool((kernel.get_parent("shell") or {}).get("metadata"))
