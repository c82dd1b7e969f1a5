"""Linear classifiers of vectors with two labels. They are fitted beside the layer: functions here are sent by name.

scikit-learn is imported where a logistic regression is fitted, on the rank that has the point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]
Mask = NDArray[np.bool_]
Method = Literal["logistic", "difference_of_means"]
METHODS = get_args(Method)


@dataclass(frozen=True)
class Classifier:
    """A vector has the second label where ``vector @ weights + bias > 0``.

    Attributes:
        weights: [D], in units of the vectors as they are.
        bias: what is added.
    """

    weights: Vectors
    bias: float

    def accuracy(self, vectors: Vectors, second: Mask) -> float:
        """Share of the vectors whose label it says."""
        return float(((vectors @ self.weights + self.bias > 0) == second).mean())


@dataclass(frozen=True)
class FitPlan:
    """What is fitted.

    Attributes:
        method: one of :data:`METHODS`.
        inverse_penalty: C of the logistic regression.
        iterations: of its solver at most.
        second: bool [text], the labels.
        held: bool [split, text], which texts are held out.
        shuffled: bool [split, text], the control's labels.
        shuffled_held: bool [split, text].
    """

    method: Method
    inverse_penalty: float
    iterations: int
    second: Mask
    held: Mask
    shuffled: Mask
    shuffled_held: Mask


def found(vectors: Vectors, documents: NDArray[np.int64], plan: FitPlan) -> dict[str, Any]:
    """What is told of one point: accuracies and a vector.

    Args:
        vectors: [n, D].
        documents: [n], the text of each.
        plan: what to fit.

    Returns:
        Of each split ``held_out``, ``fitted`` and ``shuffled``, the accuracies; ``vector`` [D], of all texts; and the mean of
        each label's vectors, ``means`` [2, D].
    """
    second = plan.second[documents]
    scores: dict[str, list[float]] = {"held_out": [], "fitted": [], "shuffled": []}
    for held_texts, shuffled, shuffled_held in zip(
        plan.held, plan.shuffled, plan.shuffled_held, strict=True
    ):
        held = held_texts[documents]
        one = fitted(vectors[~held], second[~held], plan)
        scores["held_out"].append(one.accuracy(vectors[held], second[held]))
        scores["fitted"].append(one.accuracy(vectors[~held], second[~held]))
        labels, held = shuffled[documents], shuffled_held[documents]
        control = fitted(vectors[~held], labels[~held], plan)
        scores["shuffled"].append(control.accuracy(vectors[held], labels[held]))
    means = np.stack([vectors[~second].mean(0), vectors[second].mean(0)])
    return {**scores, "vector": fitted(vectors, second, plan).weights, "means": means}


def fitted(vectors: Vectors, second: Mask, plan: FitPlan) -> Classifier:
    """A classifier of vectors by their labels."""
    kinds: dict[str, Callable[..., Classifier]] = {
        "difference_of_means": _difference_of_means,
        "logistic": _logistic,
    }
    return kinds[plan.method](vectors, second, plan)


def _difference_of_means(vectors: Vectors, second: Mask, plan: FitPlan) -> Classifier:
    """w = μ₂ − μ₁, and half way between them the border."""
    first, other = vectors[~second].mean(0), vectors[second].mean(0)
    weights = other - first
    return Classifier(weights, -float(weights @ (first + other)) / 2)


def _logistic(vectors: Vectors, second: Mask, plan: FitPlan) -> Classifier:
    """Logistic regression on standardised vectors, with its weights in units of the vectors as they are."""
    from sklearn.linear_model import LogisticRegression

    mean, deviation = vectors.mean(0), vectors.std(0)
    deviation[deviation == 0] = 1.0
    model = LogisticRegression(C=plan.inverse_penalty, max_iter=plan.iterations, tol=1e-6)
    model.fit((vectors - mean) / deviation, second)
    weights = model.coef_[0] / deviation
    return Classifier(weights, float(model.intercept_[0] - weights @ mean))


def has_scikit_learn() -> bool:
    """Whether this process can import it."""
    from importlib.util import find_spec

    return find_spec("sklearn") is not None
