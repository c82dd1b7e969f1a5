"""Many records of an atlas in files that others read.

* :func:`to_neuronpedia`: batches of features as SAEDashboard writes them for Neuronpedia's database.
* :func:`to_delphi`: what delphi's ``LatentDataset`` reads, from which it explains latents and scores explanations.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.atlas.exports import _LAYER, neuronpedia
from garcon_jupyter.atlas.files import Atlas, Example, Record
from garcon_jupyter.errors import BadData, BadRequest

EACH = 128
"""Features of a batch, as SAEDashboard has them."""

_LEAST = 1e-5
"""What delphi takes for zero."""


def to_neuronpedia(
    atlas: Atlas,
    path: str | Path,
    model: str,
    sae_set: str,
    point: str | None = None,
    units: Iterable[int] | None = None,
) -> list[Path]:
    """Write features as ``batch-0.json``, ``batch-1.json``, …: what SAEDashboard 0.8 writes and Neuronpedia imports.

    Intervals are those of equal width, the strongest first; what they contain is the share of a unit's values above zero, estimated by the
    uniform sample. What the atlas does not have (alignment with neurons, histograms of logits) is empty.

    Args:
        atlas: that was made by :meth:`garcon_jupyter.RemoteModel.features`, or of a run, whose intervals are of equal count.
        path: a new directory.
        model: what Neuronpedia calls the model.
        sae_set: what it calls the dictionary.
        point: of the units; the first where none is named.
        units: which; None for those that fire.

    Raises:
        BadData: the directory holds something.
    """
    directory = _new(path)
    point = point or atlas.points[0]
    layer = _LAYER.match(point)
    chosen = _chosen(atlas, point, units)
    written = []
    for number in range(0, len(chosen), EACH):
        batch = {
            "model_id": model,
            "layer": int(layer[1]) if layer else 0,
            "sae_set": sae_set,
            "sae_id_suffix": None,
            "features": [
                _dashboard_feature(atlas[point, unit]) for unit in chosen[number : number + EACH]
            ],
        }
        file = directory / f"batch-{number // EACH}.json"
        file.write_text(json.dumps(batch, allow_nan=False), encoding="utf-8")
        written.append(file)
    return written


def _dashboard_feature(record: Record) -> dict[str, Any]:
    whole = neuronpedia(record, "", "")
    atlas = record._atlas
    named = (
        "correlated_neurons_indices",
        "correlated_neurons_pearson",
        "pos_str",
        "pos_values",
        "neg_str",
        "neg_values",
    )
    empty = (
        *("neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1"),
        *("correlated_neurons_l1", "correlated_features_indices", "correlated_features_l1"),
        *("correlated_features_pearson", "logits_hist_data_bar_heights"),
        *("logits_hist_data_bar_values", "decoder_weights_dist", "vector"),
    )
    return {
        "feature_index": record.unit,
        **{name: whole.get(name, []) for name in named},
        **{name: [] for name in empty},
        "frac_nonzero": record.rate,
        "freq_hist_data_bar_values": whole["freq_hist_data_bar_values"],
        "freq_hist_data_bar_heights": whole["freq_hist_data_bar_heights"],
        "n_prompts_total": int(atlas.index["documents"]),
        "n_tokens_in_prompt": atlas.index["before"] + 1 + atlas.index["after"],
        "dataset": "",
        "activations": list(_activations(record)),
    }


def _activations(record: Record) -> Iterable[dict[str, Any]]:
    largest = float(record.moments["high"])
    for example in record.examples:
        yield _activation(example, -1.0, largest, -1.0)
    if "wide_values" not in record._atlas.index["arrays"]:
        for part in reversed(record.intervals):
            for example in part:
                share = 1 / len(record.intervals)
                yield _activation(example, part[0].value, part[-1].value, share)
        return
    parts, sample = record.equal_width, [one.value for one in record.sample]
    width = largest / len(parts)
    for number, part in reversed(list(enumerate(parts))):
        inside = [v for v in sample if min(int(v / width), len(parts) - 1) == number]
        for example in part:
            share = len(inside) / max(1, len(sample))
            yield _activation(example, number * width, (number + 1) * width, share)


def _activation(example: Example, low: float, high: float, share: float) -> dict[str, Any]:
    return {
        "bin_min": low,
        "bin_max": high,
        "bin_contains": share,
        "tokens": example.tokens,
        "values": example.values,
        "qualifying_token_index": example.at,
    }


def to_delphi(
    atlas: Atlas,
    path: str | Path,
    point: str | None = None,
    units: Iterable[int] | None = None,
    files: int = 1,
    pad: int = 0,
    model: str | None = None,
) -> Path:
    """Write examples as delphi's cache of latents: ``PATH/latents/MODULE/{first}_{last}.safetensors`` and ``config.json``.

    delphi caches all activations of all contexts. Here the contexts are the windows of the kept examples, strongest and sampled: enough for what it
    shows to a model that explains. Of a window that is another unit's example, a unit's values are not known and taken for 0.

    Args:
        atlas: of examples with windows.
        path: a new directory; ``LatentDataset(raw_dir=PATH/latents)`` reads it.
        point: of the units; the first where none is named.
        units: which; None for those that fire.
        files: into how many ranges of units.
        pad: token that fills windows at the ends of documents.
        model: whose tokenizer delphi loads; None for what the atlas was made with.

    Returns:
        The directory with the modules.

    Raises:
        BadData: the directory holds something.
        BadRequest: the atlas has no windows.
    """
    from safetensors.numpy import save_file

    width = atlas.index["before"] + 1 + atlas.index["after"]
    if width < 2:
        raise BadRequest("The atlas has no windows.", "Make it with before= and after=.")
    point = point or atlas.points[0]
    where = _new(path) / "latents"
    module = where / re.sub(r"[^\w.-]+", "-", point)
    module.mkdir(parents=True)
    chosen = _chosen(atlas, point, units)
    tokens, found = _contexts(atlas, point, chosen, pad)
    total = atlas.units[point]
    cuts = [total * n // files for n in range(files + 1)]
    for first, stop in itertools.pairwise(cuts):
        mine = (found["latent"] >= first) & (found["latent"] < stop)
        columns = (found["context"][mine], found["at"][mine], found["latent"][mine] - first)
        locations = np.stack(columns, 1).astype(np.uint32)
        if max(locations.max(initial=0), len(tokens)) < 1 << 16:
            locations = locations.astype(np.uint16)
        save_file(
            {
                "locations": locations,
                "activations": found["value"][mine].astype(np.float16),
                "tokens": tokens.astype(
                    np.uint32 if tokens.max(initial=0) >= 1 << 16 else np.uint16
                ),
            },
            module / f"{first}_{stop - 1}.safetensors",
        )
    told = {
        "model_name": model or atlas.index.get("model", ""),
        "ctx_len": width,
        "cache_ctx_len": width,
        "batch_size": 1,
        "n_tokens": int(tokens.size),
        "dataset_repo": "",
        "dataset_split": "",
        "dataset_name": "",
    }
    (module / "config.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    return where


def _contexts(
    atlas: Atlas, point: str, units: Sequence[int], pad: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """All windows once, [contexts, width], and where in them units are not 0."""
    numbers: dict[int, int] = {}
    tokens: list[np.ndarray] = []
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    for unit in units:
        record, seen = atlas[point, unit], set[int]()
        for kind in ("top", "sample"):
            places, windows, values = (
                record.array(f"{kind}_{what}") for what in ("places", "tokens", "around")
            )
            for slot in np.nonzero((windows >= 0).any(axis=1))[0]:
                place = int(places[slot])
                if place in seen:
                    continue
                seen.add(place)
                if place not in numbers:
                    numbers[place] = len(tokens)
                    tokens.append(np.where(windows[slot] < 0, pad, windows[slot]))
                at = (np.nan_to_num(values[slot]) > _LEAST).nonzero()[0]
                context = np.full(len(at), numbers[place])
                rows.append((context, at, np.full(len(at), unit), values[slot][at]))
    names = ("context", "at", "latent", "value")
    if not rows:
        raise BadData("None of these units has examples.", "Give others.")
    joined = zip(*rows, strict=True)
    found = {name: np.concatenate(column) for name, column in zip(names, joined, strict=True)}
    return np.stack(tokens), found


def _chosen(atlas: Atlas, point: str, units: Iterable[int] | None) -> list[int]:
    if units is not None:
        return [atlas[point, unit].unit for unit in units]
    first = atlas.first[point]
    fired = atlas.array("fired")[first : first + atlas.units[point]]
    return [int(unit) for unit in fired.nonzero()[0]]


def _new(path: str | Path) -> Path:
    directory = Path(path).expanduser()
    if directory.exists() and any(directory.iterdir()):
        raise BadData(f"{directory} holds something already.", "Give a new directory.")
    directory.mkdir(parents=True, exist_ok=True)
    return directory
