"""How ranks that depend on each other stop in the middle of a forward.

None may stop alone: the others would wait for it in a collective. But they all run the same layers, so they
can agree on one. When a request is cancelled each rank says how many layers it has entered, and waits before
the next. The first layer that none has entered is where they stop: from there on each of them *skips* its
layers, which then return what they are given, so that the pass ends in the usual way, with the usual
collectives between stages, in no time.

Ranks of one stage agree (they share layers); a stage that waits for the one before it gets what that one
skipped to.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

DECISION_TIME = 60.0
"""Seconds that a rank waits before a layer to hear where the others are; by then the watchdog has ended it."""

_REMEMBERED = 64
"""Requests to stop that are remembered: one may be told of before it begins here."""


class Stop:
    """One rank's side.

    Attributes:
        entered: layers entered since the request began.
        skipping: whether the layers of this pass are skipped.
    """

    def __init__(self) -> None:
        self.entered = 0
        self.skipping = False
        self._asked = False
        self._at: int | None = None
        self._decided = threading.Event()
        self._request: str | None = None
        self._told: OrderedDict[str, int | None] = OrderedDict()  # of others than the running one
        self._lock = threading.Lock()  # requests begin on one thread and are stopped by another

    def begin(self, request: str, cancelled: bool) -> None:
        """A request begins; perhaps one that was cancelled before it came."""
        with self._lock:
            self.entered, self.skipping, self._at = 0, False, None
            self._decided.clear()
            self._request, self._asked = request, cancelled or request in self._told
            at = self._told.pop(request, None)
        if at is not None:
            self.decide(request, at)

    def ask(self, request: str) -> int:
        """A request shall stop: how many layers of it this rank has entered. From any thread."""
        with self._lock:
            if self._request != request:
                self._remember(request, None)
                return 0
            self._asked = True
            return self.entered

    def decide(self, request: str, layer: int) -> None:
        """All have said where they are: stop before this layer. From any thread.

        The first word holds: a second one could come to a rank that has stopped by the first, and to
        another that has not yet.
        """
        with self._lock:
            if self._request != request:
                self._remember(request, layer)
            elif self._at is None:
                self._asked, self._at = True, layer
                self._decided.set()

    def _remember(self, request: str, layer: int | None) -> None:
        if self._told.get(request) is None:
            self._told[request] = layer
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)

    def before_layer(self) -> bool:
        """Called by each layer, on the main thread: whether to skip it."""
        self.entered += 1
        if not self._asked:
            return False
        if self._at is None:
            self._decided.wait(DECISION_TIME)
        self.skipping = self._at is not None and self.entered > self._at
        return self.skipping

    def guard(self, layers: Iterable[nn.Module]) -> None:
        """Let these layers be skipped."""
        for layer in layers:
            layer.__dict__["forward"] = self._guarded(layer.forward)

    def _guarded(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            if self.before_layer():
                return hidden_states
            return forward(hidden_states, *args, **kwargs)

        return guarded


def agreed(entered: Iterable[int]) -> int:
    """Before which layer ranks stop that have entered so many: the first that none is sure not to enter.

    A rank that says n may be past its look at the flag and inside layer n, or wait before it.
    """
    return max(entered)
