"""Recorders: streaming reductions that are probes.

    from garcon_jupyter import recorders

    probes = rmodel.probe_points["layers.*.mlp.post_activation"].probes(recorders.TopK(10))
    rmodel.run(texts, probes)
    rmodel.recordings()["layers.4.mlp.post_activation"].topk.values      # [1536, 10]

A recorder keeps a small state beside the layer while data streams past. All of them are pure functions of
what they saw: batches, replicas, tensor shards and runs may be merged in any way. They need no server:
``TopK(10).update(None, seen(values, alone(tokens)))``.

Not here: where their values come from, and where their states are kept.

``base``          what all recorders have in common
``observing``     what recorders are shown: observations of units, each with its place in the data
``sparse_values`` values most of which are 0, as latents of a dictionary are
``states``        what recorders have gathered, in memory and on disk
``moments``       mean, variance, skewness and kurtosis
``histogram``     histograms with logarithmic bins, and the quantiles that they hold
``topk``          the largest and the smallest values, with where they were
``reservoir``     uniform samples: of all values, and of those in each interval
``examples``      the best examples of each group of values
``firing``        how often every unit fires
``coactivation``  which units fire together
``covariance``    covariance of units, of one point or of two
``sketch``        correlations of units of different points, at a memory that does not grow with their pairs
``tokens``        what every unit does at each token of the vocabulary
``storing``       activations written to disk by the ranks that have them
``transform``     recording what a function makes of a point's tensor
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from garcon_jupyter.errors import BadProbe, UnknownName
from garcon_jupyter.recorders.base import Own, Recorder, Together
from garcon_jupyter.recorders.coactivation import Coactivation, CoactivationState
from garcon_jupyter.recorders.covariance import Covariance, CovarianceState, CrossCovariance
from garcon_jupyter.recorders.examples import Examples
from garcon_jupyter.recorders.firing import Firing, FiringState
from garcon_jupyter.recorders.histogram import Histogram, HistogramState, Quantiles
from garcon_jupyter.recorders.moments import Moments, MomentsState
from garcon_jupyter.recorders.observing import Seen, alone, seen
from garcon_jupyter.recorders.reservoir import (
    EqualCountReservoir,
    EqualWidthReservoir,
    Reservoir,
    equal_count,
)
from garcon_jupyter.recorders.sketch import Sketch, SketchState
from garcon_jupyter.recorders.states import State, load, save
from garcon_jupyter.recorders.tokens import TokenState, TokenStatistics
from garcon_jupyter.recorders.topk import BottomK, TopK
from garcon_jupyter.recorders.transform import Of, Transform

WORDS: dict[str, tuple[Callable[..., Recorder[Any]], str, str]] = {
    "topk": (lambda k=10: TopK(k), "K", "the K largest values of each unit (default 10)"),
    "bottomk": (lambda k=10: BottomK(k), "K", "the K smallest"),
    "moments": (Moments, "", "mean, variance, skewness, kurtosis, range"),
    "histogram": (Histogram, "", "counts in logarithmic bins"),
    "quantiles": (
        lambda error=0.02: Quantiles(error),
        "ERROR",
        "quantiles within a relative error (default 0.02)",
    ),
    "firing": (
        lambda threshold=0.0: Firing(threshold),
        "THRESHOLD",
        "how often each unit is above it (default 0)",
    ),
    "reservoir": (lambda k=20: Reservoir(k), "K", "K values drawn uniformly (default 20)"),
    "tokens": (TokenStatistics, "", "count, mean and maximum at each token"),
    "covariance": (Covariance, "", "of all pairs of units"),
    "sketch": (
        lambda width=1024: Sketch(width),
        "K",
        "what correlations with units of other points are estimated from (default 1024 sums)",
    ),
    "coactivation": (
        lambda threshold=0.0: Coactivation(threshold),
        "THRESHOLD",
        "which units fire together",
    ),
}
"""What can follow ``--record``: how it is made, what it takes, and what it keeps."""


def from_word(word: str) -> Recorder[Any]:
    """The recorder of a word such as ``topk=10``.

    Raises:
        UnknownName: there is none of this name.
        BadProbe: it does not take this value.
    """
    name, equals, value = word.partition("=")
    if name not in WORDS:
        raise UnknownName.among("recorder", name, WORDS, f"There are {', '.join(WORDS)}.")
    make, takes, _ = WORDS[name]
    if not equals:
        return make()
    try:
        return make(int(value) if takes == "K" else float(value)) if takes else _takes_none(name)
    except ValueError:
        raise BadProbe(
            f"{word}: {value!r} is no {takes}.", "Write a number, such as topk=10."
        ) from None


def _takes_none(name: str) -> Recorder[Any]:
    raise BadProbe(f"{name} takes no value.", f"Write --record {name}.")


__all__ = [
    "WORDS",
    "BottomK",
    "Coactivation",
    "CoactivationState",
    "Covariance",
    "CovarianceState",
    "CrossCovariance",
    "EqualCountReservoir",
    "EqualWidthReservoir",
    "Examples",
    "Firing",
    "FiringState",
    "Histogram",
    "HistogramState",
    "Moments",
    "MomentsState",
    "Of",
    "Own",
    "Quantiles",
    "Recorder",
    "Reservoir",
    "Seen",
    "Sketch",
    "SketchState",
    "State",
    "Together",
    "TokenState",
    "TokenStatistics",
    "TopK",
    "Transform",
    "alone",
    "equal_count",
    "from_word",
    "load",
    "save",
    "seen",
]
