"""How well what is said of a unit predicts it: each score with its formula, and None with a reason where it has no value.

A score that is undefined is not 0. A simulator that says the same of every token has no correlation with anything; a zero would
say that it was compared and found unrelated, and would be averaged with scores that are numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Sequences = Sequence[Sequence[float]]
"""Numbers of tokens, by sequence."""

_FLAT = 1e-12
"""Of the largest magnitude: what varies less does so by rounding."""


@dataclass(frozen=True)
class Score:
    """A number, or why there is none.

    Attributes:
        value: None where it is undefined.
        n: of how many tokens, texts or questions.
        reason: why it is undefined, beginning with that word; "" where it is not.
    """

    value: float | None
    n: int
    reason: str = ""

    def __str__(self) -> str:
        return self.reason if self.value is None else f"{self.value:.3f}"


def undefined(n: int, why: str) -> Score:
    """A score that has no value."""
    return Score(None, n, f"undefined: {why}")


def correlation(true: Sequences, simulated: Sequences) -> Score:
    r"""Pearson's correlation over all tokens of all sequences, put one after the other.

    .. code-block:: text

        r = Σ (t − mean t) (s − mean s) / √( Σ (t − mean t)² · Σ (s − mean s)² )

    It is not the mean of the sequences' own correlations: what matters is also which sequences a unit fires on (Bills et al. 2023).

    Args:
        true: the unit's values, by sequence.
        simulated: the simulator's, in any unit.

    Returns:
        From −1 to 1; undefined where either does not vary, or there are less than two tokens.
    """
    t, s = _joined(true, simulated)
    if len(t) < 2:
        return undefined(len(t), "less than two tokens")
    for what, values in (("simulation", s), ("unit", t)):
        if is_flat(values):
            return undefined(len(t), f"the {what} has the same value at every token")
    t, s = t - t.mean(), s - s.mean()
    r = float((t @ s) / math.sqrt(float(t @ t) * float(s @ s)))
    return Score(max(-1.0, min(1.0, r)), len(t))


def r_squared(true: Sequences, predicted: Sequences) -> Score:
    r"""R², uncentred: what part of the unit's squares is predicted.

    .. code-block:: text

        R² = 1 − Σ (t − p)² / Σ t²

    Not centred, as the Transformer Debugger has it: a prediction of 0 everywhere has 0, and the mean of the unit's values more than
    that. From minus infinity to 1.

    Args:
        true: the unit's values, by sequence.
        predicted: calibrated, in the same unit.

    Returns:
        Undefined where the unit is 0 at every token.
    """
    t, p = _joined(true, predicted)
    if not len(t) or not np.any(t):
        return undefined(len(t), "the unit is 0 at every token")
    return Score(1.0 - float(((t - p) ** 2).sum() / (t**2).sum()), len(t))


def absolute_deviation(true: Sequences, predicted: Sequences) -> Score:
    r"""What part of the unit's absolute values is predicted.

    .. code-block:: text

        1 − Σ |t − p| / Σ |t|

    As :func:`r_squared`, but one token that is far off counts for less.

    Args:
        true: the unit's values, by sequence.
        predicted: calibrated, in the same unit.

    Returns:
        Undefined where the unit is 0 at every token.
    """
    t, p = _joined(true, predicted)
    if not len(t) or not np.any(t):
        return undefined(len(t), "the unit is 0 at every token")
    return Score(1.0 - float(np.abs(t - p).sum() / np.abs(t).sum()), len(t))


def auc(positive: Sequence[float], negative: Sequence[float]) -> Score:
    r"""The area under the ROC curve: how often one that it holds for is rated above one that it does not hold for.

    .. code-block:: text

        AUC = ( #(p > n) + ½ #(p = n) ) / (P · N)        over all pairs of a positive p and a negative n

    Ties are a half, so that a judge who rates all alike has 0.5. Of answers that are yes or no it is the *balanced accuracy*, (the share of
    positives that were found + the share of negatives that were left) / 2. Computed from ranks, after Mann and Whitney.

    Args:
        positive: ratings of those that it holds for.
        negative: of the others.

    Returns:
        From 0 to 1; undefined where one kind is missing.
    """
    p, n = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    if not len(p) or not len(n):
        kind = "that the explanation holds for" if not len(p) else "of another kind"
        return undefined(len(p) + len(n), f"no answer about anything {kind}")
    below = np.searchsorted(np.sort(n), p, "left").sum()
    up_to = np.searchsorted(np.sort(n), p, "right").sum()
    return Score(float(below + up_to) / (2 * len(p) * len(n)), len(p) + len(n))


def accuracy(right: Sequence[bool]) -> Score:
    """The share of questions that were answered rightly: ``Σ right / n``. Undefined where none was answered."""
    if not right:
        return undefined(0, "no answer")
    return Score(sum(map(bool, right)) / len(right), len(right))


def _joined(one: Sequences, other: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Both, float64 [tokens], one sequence after the other.

    Raises:
        ValueError: they are not of the same tokens.
    """
    if [len(part) for part in one] != [len(part) for part in other]:
        raise ValueError("a simulation has another number of tokens than its text")
    return concatenated(one), concatenated(other)


def concatenated(parts: Sequences) -> np.ndarray:
    """All sequences, one after the other, float64 [tokens]."""
    return np.concatenate([np.zeros(0), *(np.asarray(part, np.float64) for part in parts)])


def is_flat(values: np.ndarray) -> bool:
    """Whether values are the same, but for rounding."""
    return bool(np.ptp(values) <= _FLAT * max(float(np.abs(values).max()), 1e-300))
