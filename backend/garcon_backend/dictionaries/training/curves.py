"""What is told of a training: its curve, in as many points as can be seen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from garcon_jupyter.wire.dictionary_training import TrainingPoint

MOST = 256
"""Points of a curve; when there are more, two become one."""


@dataclass
class _Sums:
    steps: int = 0
    unexplained: float = 0.0
    l0: float = 0.0
    loss: float = 0.0


class Curve:
    """The means over a few steps each.

    Attributes:
        points: told so far.
        merged: how often two points became one: whoever has heard some of them has to ask anew.
    """

    def __init__(self) -> None:
        self.points: list[TrainingPoint] = []
        self.merged = 0
        self._each = 1
        self._sums = _Sums()

    def add(self, point: TrainingPoint) -> None:
        """Take in a step: `point` as it is of this one."""
        sums = self._sums
        sums.steps += 1
        sums.unexplained += point.unexplained
        sums.l0 += point.l0
        sums.loss += point.loss
        if sums.steps < self._each:
            return
        n = sums.steps
        means = {"unexplained": sums.unexplained / n, "l0": sums.l0 / n, "loss": sums.loss / n}
        self.points.append(TrainingPoint(**{**asdict(point), **means}))
        self._sums = _Sums()
        if len(self.points) >= MOST:
            self.points = [_mean(*self.points[i : i + 2]) for i in range(0, len(self.points), 2)]
            self._each, self.merged = 2 * self._each, self.merged + 1

    def state(self) -> dict[str, Any]:
        """As JSON has it."""
        points = [asdict(point) for point in self.points]
        return {
            "points": points,
            "each": self._each,
            "merged": self.merged,
            "sums": asdict(self._sums),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Be as it was."""
        self.points = [TrainingPoint(**point) for point in state["points"]]
        self._each, self.merged = state["each"], state["merged"]
        self._sums = _Sums(**state["sums"])


def _mean(one: TrainingPoint, other: TrainingPoint) -> TrainingPoint:
    means = {
        name: (getattr(one, name) + getattr(other, name)) / 2
        for name in ("unexplained", "l0", "loss")
    }
    return TrainingPoint(**{**asdict(other), **means})
