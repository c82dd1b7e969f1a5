"""From the levels that a simulator says to the units of the point: nothing fitted, a line, or percentiles.

A simulator says levels from 0 to 10; the unit has values of its own. Correlation does not mind, but what a prediction explains of the
values does. What is fitted is fitted on ``calibration``, never on what is scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.explanations.scoring.scores import Sequences, concatenated, is_flat

KINDS = ("none", "linear", "percentile")
"""What there is."""


@dataclass(frozen=True)
class Calibration:
    """A way from levels to values.

    Attributes:
        kind: "none", "linear" or "percentile".
        slope, intercept: of "none" and "linear": ``value = slope · level + intercept``.
        levels, values: of "percentile": the corners of the line that is drawn through them.
        reason: why it could not be fitted; "" where it was.
    """

    kind: str
    slope: float = 0.0
    intercept: float = 0.0
    levels: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    reason: str = ""

    def predicted(self, simulated: Sequences) -> list[list[float]]:
        """Values for levels, by sequence."""
        if self.kind == "percentile":
            return [np.interp(part, self.levels, self.values).tolist() for part in simulated]
        return [
            (self.slope * np.asarray(part, np.float64) + self.intercept).tolist()
            for part in simulated
        ]


def check_kind(kind: str) -> None:
    """That there is such a calibration.

    Raises:
        BadRequest: there is none.
    """
    if kind not in KINDS:
        raise BadRequest(f"There is no calibration {kind!r}.", f"Use {', '.join(KINDS)}.")


def fitted(
    kind: str, true: Sequences, simulated: Sequences, largest: float, top: int
) -> Calibration:
    r"""A calibration of a kind.

    .. code-block:: text

        none        v = l · largest / top                          nothing is fitted
        linear      v = a · l + b,  a, b = argmin Σ (a l + b − t)²  least squares over the calibration's tokens
        percentile  v = interp(l; sorted l, sorted t)              the k-th smallest level becomes the k-th smallest value

    Levels that are equal become the mean of the values that they would become in turn, so that the order of the tokens does not matter; beyond
    the smallest and largest level the line goes on level.

    Args:
        kind: "none", "linear" or "percentile".
        true, simulated: of the calibration's tokens, by sequence.
        largest: the unit's largest value.
        top: the highest level.

    Raises:
        BadRequest: there is no such kind.
    """
    check_kind(kind)
    if kind == "none":
        return Calibration(kind, slope=largest / top)
    t, s = concatenated(true), concatenated(simulated)
    if not len(t):
        return Calibration(kind, reason="undefined: nothing was simulated to calibrate with")
    if kind == "percentile":
        return _percentile(t, s)
    if is_flat(s):
        return Calibration(
            kind, reason="undefined: the simulation has the same value at every token"
        )
    centred = s - s.mean()
    slope = float(centred @ (t - t.mean()) / (centred @ centred))
    return Calibration(kind, slope=slope, intercept=float(t.mean() - slope * s.mean()))


def _percentile(t: np.ndarray, s: np.ndarray) -> Calibration:
    known, where = np.unique(np.sort(s), return_inverse=True)
    means = np.bincount(where, weights=np.sort(t)) / np.bincount(where)
    return Calibration("percentile", levels=tuple(known.tolist()), values=tuple(means.tolist()))
