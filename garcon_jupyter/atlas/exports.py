"""A record of an atlas in the layouts that others read.

* :func:`openai`: the neuron record of *Language models can explain neurons in language models* (Bills et al. 2023).
* :func:`neuronpedia`: the feature of Neuronpedia's API.
"""

from __future__ import annotations

import math
import re
from typing import Any

from garcon_jupyter.atlas.files import Example, Record

_LAYER = re.compile(r"layers\.(\d+)\.")


def openai(record: Record) -> dict[str, Any]:
    """A unit as a ``NeuronRecord``, ready for ``json.dumps``."""
    moments = record.moments
    intervals = record.intervals
    return {
        "dataclass_name": "NeuronRecord",
        "neuron_id": {
            "dataclass_name": "NeuronId",
            "layer_index": _layer(record),
            "neuron_index": record.unit,
        },
        "random_sample": [_activations(one) for part in intervals for one in part],
        "random_sample_by_quantile": [[_activations(one) for one in part] for part in intervals],
        "quantile_boundaries": [part[0].value for part in intervals[1:] if part],
        **{name: _number(moments[name]) for name in ("mean", "variance", "skewness", "kurtosis")},
        "most_positive_activation_records": [_activations(one) for one in record.examples],
    }


def _activations(example: Example) -> dict[str, Any]:
    return {
        "dataclass_name": "ActivationRecord",
        "tokens": example.tokens,
        "activations": example.values,
    }


def neuronpedia(record: Record, model: str, source: str) -> dict[str, Any]:
    """A unit as a feature of Neuronpedia, ready for ``json.dumps``.

    Args:
        model: what Neuronpedia calls the model.
        source: what it calls the layer, such as "4-mlp".
    """
    arrays = record._atlas.index["arrays"]
    counts, edges = record.histogram
    shown = [n for n in range(1, len(counts) - 1) if counts[n]]
    feature: dict[str, Any] = {
        "modelId": model,
        "layer": source,
        "index": str(record.unit),
        "frac_nonzero": record.rate,
        "maxActApprox": _number(record.moments["high"]),
        "freq_hist_data_bar_heights": [int(counts[n]) for n in shown],
        "freq_hist_data_bar_values": [float(edges[n] + edges[n + 1]) / 2 for n in shown],
        "activations": [_feature_activation(one) for one in record.examples],
    }
    if "correlated" in arrays:
        feature["correlated_neurons_indices"] = [unit for unit, _ in record.correlated]
        feature["correlated_neurons_pearson"] = [value for _, value in record.correlated]
    if "logits_up" in arrays:
        for word, down in (("pos", False), ("neg", True)):
            feature[f"{word}_str"] = [token for token, _ in record.logits(down)]
            feature[f"{word}_values"] = [value for _, value in record.logits(down)]
    return feature


def _feature_activation(example: Example) -> dict[str, Any]:
    return {
        "tokens": example.tokens,
        "values": example.values,
        "maxValue": max(example.values),
        "maxValueTokenIndex": example.values.index(max(example.values)),
        "minValue": min(example.values),
    }


def _layer(record: Record) -> int | None:
    found = _LAYER.match(record.point)
    return int(found[1]) if found else None


def _number(value: float) -> float | None:
    """A number as JSON has it."""
    return value if math.isfinite(value) else None
