"""How far a run is, three buttons to steer it, and a picture of what it has recorded so far.

The page asks for news every second while the widget is in sight and the run goes on, and at no other time. The
picture is drawn anew at each look, so it follows the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import traitlets

from garcon_jupyter.widgets import bundle, still, svg
from garcon_jupyter.widgets.picture import Picture

VERBS = ("pause", "resume", "cancel")


class RunWidget(Picture):
    """A bar with tokens per second and time left; pause, resume and cancel; and what `draw` makes.

    Args:
        poll: answers with "state", "fraction" (None where it is not known), "words" and "over".
        steer: is given one of "pause", "resume" and "cancel"; None where nothing can be steered, and there are no buttons.
        draw: makes HTML of what is recorded so far; None for no picture.
        title: name of the run.

    Attributes:
        state: the last answer.
        drawn: the last picture, as HTML; "" before the first.
        looks: how many answers there were.
        steered: whether it has buttons.
    """

    _esm = bundle.module("run")
    _css = bundle.style("run")

    state = traitlets.Dict().tag(sync=True)
    drawn = traitlets.Unicode().tag(sync=True)
    looks = traitlets.Int(0).tag(sync=True)
    steered = traitlets.Bool(True).tag(sync=True)

    def __init__(
        self,
        poll: Callable[[], Mapping[str, Any]],
        steer: Callable[[str], Any] | None,
        draw: Callable[[], str] | None = None,
        title: str = "run",
    ) -> None:
        self._poll, self._steer, self._draw = poll, steer, draw
        super().__init__(title=title, state=dict(poll()), steered=steer is not None)
        self.on_msg(self._hear)

    def refresh(self) -> None:
        """Ask how far it is and draw what is there, beside the kernel."""
        self.later("look", self._refresh)

    def _refresh(self) -> None:
        state = dict(self._poll())
        drawn = self._draw() if self._draw else ""
        with self.hold_sync():
            self.state, self.drawn, self.looks = state, drawn, self.looks + 1

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        word = content.get("do") if isinstance(content, dict) else None
        if word == "look":
            self.refresh()
        elif word in VERBS:
            self.later("steer", lambda: self._turn(word))

    def _turn(self, word: str) -> None:
        if self._steer is not None:
            self._steer(word)
        self._refresh()

    @property
    def summary(self) -> str:
        return str(self.state.get("words", ""))

    def still(self) -> str:
        picture = still.lines(self.title, [self.summary])
        return svg.figure(picture, self.title, self.summary) + self.drawn
