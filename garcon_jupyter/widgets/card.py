"""The server card: what a server is doing, how long it will stay, and two buttons.

The page asks for news every other second while the card is in sight and at no other time; between two
answers it counts down by itself. Looking never counts as use: only "keep alive" winds up the idle clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import traitlets

from garcon_jupyter.amounts import sized
from garcon_jupyter.widgets import bundle, still, svg
from garcon_jupyter.widgets.picture import Picture


class ServerCard(Picture):
    """State, queue, users, ranks with their memory, idle countdown; keep alive and stop.

    Args:
        status: answers with "running" (a request or None) and "waiting", each a mapping with "kind",
            "session" and "seconds"; "clients" ("user", "session"); "idle_left" (seconds or None);
            "ranks" ("rank", "host", "device", "stage", "tp_rank", "layers", "parameter_bytes", "memory").
        keep_alive: winds up the idle clock; None where that cannot be done.
        stop: ends the server; None where that cannot be done.
        title: name of the server.
        facts: lines about it, such as its model and degrees.

    Attributes:
        state: the last answer; empty before the first.
        stopped: why nothing more is heard of it; "" while it lives.
    """

    _esm = bundle.module("card")
    _css = bundle.style("card")

    facts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    stopped = traitlets.Unicode().tag(sync=True)
    looks = traitlets.Int(0).tag(sync=True)  # how many answers there were, of which some are alike
    can_keep = traitlets.Bool(False).tag(sync=True)
    can_stop = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        status: Callable[[], Mapping[str, Any]],
        keep_alive: Callable[[], Any] | None = None,
        stop: Callable[[], Any] | None = None,
        title: str = "server",
        facts: Sequence[str] = (),
    ) -> None:
        self._status, self._keep_alive, self._stop = status, keep_alive, stop
        super().__init__(
            title=title,
            facts=list(facts),
            state=_plain(status()),
            can_keep=keep_alive is not None,
            can_stop=stop is not None,
        )
        self.on_msg(self._hear)

    def refresh(self) -> None:
        """Ask how the server is, beside the kernel."""
        self.later("state", self._refresh)

    def _refresh(self) -> None:
        try:
            state = _plain(self._status())
            with self.hold_sync():
                self.state, self.looks = state, self.looks + 1
        except Exception as error:  # noqa: BLE001 - the server ended, however: say so
            # A look may come after the button that ended it: the first reason is the reason.
            self.stopped = self.stopped or str(error) or type(error).__name__

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        word = content.get("do") if isinstance(content, dict) else None
        if word == "look":
            self.refresh()
        elif word == "keep" and self._keep_alive is not None:
            self.later("keep", self._keep)
        elif word == "stop" and self._stop is not None:
            self.later("stop", self._end)

    def _keep(self) -> None:
        assert self._keep_alive is not None
        self._keep_alive()
        self._refresh()

    def _end(self) -> None:
        assert self._stop is not None
        self._stop()
        self.stopped = "stopped by you"

    @property
    def summary(self) -> str:
        ranks = len(self.state.get("ranks", ()))
        state = self.stopped or ("busy" if self.state.get("running") else "idle")
        return f"{state}, {ranks} rank{'' if ranks == 1 else 's'}"

    def still(self) -> str:
        lines = [*self.facts, self.summary, *_rank_lines(self.state)]
        return svg.figure(still.lines(self.title, lines), self.title, self.summary)


def _plain(status: Mapping[str, Any]) -> dict[str, Any]:
    """What the card shows of an answer; nothing else of it travels to the page."""
    names = ("running", "waiting", "clients", "idle_left", "ranks")
    return {name: status.get(name) for name in names}


def _rank_lines(state: Mapping[str, Any]) -> list[str]:
    from garcon_jupyter.widgets.sharding import place

    ranks = state.get("ranks") or ()
    return [
        f"rank {rank['rank']} · {place(rank, ranks)} · {sized(rank['parameter_bytes'])} of parameters"
        + (f" · {sized(rank['memory'])} in use" if rank.get("memory") else "")
        for rank in ranks
    ]
