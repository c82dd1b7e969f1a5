"""Explanations in the layouts that others read and write.

* Neuronpedia's export: a feature a line (or in one JSON list), with ``modelId``, ``layer``, ``index``, ``description``,
  ``explanationModelName`` and ``typeName``; also compressed, as ``batch-0.jsonl.gz``.
* The Transformer Debugger's, and that of *Language models can explain neurons in language models*: ``LAYER/UNIT.jsonl``, one line with a
  ``NeuronSimulationResults``: the explanations, with simulations and scores. Fields of the 2023 release are read by their former names.

What is undefined is ``null`` there, and never 0.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from garcon_jupyter.errors import BadData
from garcon_jupyter.explanations.asking import Attempts
from garcon_jupyter.explanations.records.excerpts import TOP, Excerpt
from garcon_jupyter.explanations.results import Explanation, ScoredExplanation
from garcon_jupyter.explanations.scoring import scores
from garcon_jupyter.explanations.scoring.by_simulation import SimulatedExcerpt, SimulationScores
from garcon_jupyter.explanations.scoring.calibration import Calibration
from garcon_jupyter.explanations.scoring.scores import Score, undefined
from garcon_jupyter.explanations.scoring.simulating import Simulation

_LAYER = re.compile(r"layers\.(\d+)\.")

Places = str | Mapping[str, str] | Callable[[str], str]
"""What other people's layers are called here: one name for all, a table, or a function."""


# -- Neuronpedia -----------------------------------------------------------------------------------


def to_neuronpedia(
    explanations: Iterable[ScoredExplanation | Explanation],
    path: str | Path,
    model: str,
    source: str | Mapping[str, str],
    kind: str = "oai_token-act-pair",
) -> Path:
    """Write explanations as Neuronpedia's export has them.

    Args:
        explanations: to write.
        path: the file: ``.jsonl``, ``.jsonl.gz``, or ``.json`` for one list.
        model: what Neuronpedia calls the model.
        source: what it calls the layer, such as "4-mlp"; a table by points where there are several.
        kind: name of the way in which they were made, of those that Neuronpedia knows.

    Returns:
        The file.
    """
    rows = []
    for one in explanations:
        said = one.explanation if isinstance(one, ScoredExplanation) else one
        rows.append(
            {
                "modelId": model,
                "layer": source if isinstance(source, str) else _place(source, said.point),
                "index": str(said.unit),
                "description": said.text,
                "explanationModelName": said.model,
                "typeName": kind,
            }
        )
    target = Path(path).expanduser()
    if target.suffix == ".json":
        text = json.dumps(rows, ensure_ascii=False, indent=1)
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    data = text.encode()
    target.write_bytes(gzip.compress(data, mtime=0) if target.suffix == ".gz" else data)
    return target


def from_neuronpedia(path: str | Path, points: Places) -> list[Explanation]:
    """Read explanations of Neuronpedia's export.

    Args:
        path: a file, or a directory of ``batch-….jsonl.gz``.
        points: what its layers are called here: the name of a point for all, a table, or a function.

    Raises:
        BadData: a line is none; says which.
    """
    found = []
    for file, number, row in _rows(Path(path).expanduser(), ("*.jsonl", "*.jsonl.gz", "*.json")):
        try:
            index, text = int(row["index"]), row["description"]
            if index < 0 or not isinstance(text, str):
                raise ValueError("index or description")
            place = _place(points, str(row["layer"]))
            model, kind = row.get("explanationModelName"), row.get("typeName")
            found.append(Explanation(place, index, text, str(model or ""), str(kind or "")))
        except (KeyError, TypeError, ValueError) as error:
            raise BadData(
                f"Line {number} of {file} is no explanation of Neuronpedia: {error!r}.",
                "Its lines have modelId, layer, index and description.",
            ) from None
    return found


def _rows(path: Path, patterns: Sequence[str]) -> Iterator[tuple[Path, int, Any]]:
    """(file, number of the line, what it says) of a file, or of all files in a directory."""
    files = [path]
    if path.is_dir():
        files = sorted({file for pattern in patterns for file in path.rglob(pattern)})
    for file in files:
        try:
            data = file.read_bytes()
            data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
            text = data.decode()
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise BadData(
                f"{file} cannot be read: {error}.", "Give a file of JSON lines."
            ) from None
        if text.lstrip().startswith("["):
            yield from ((file, n, row) for n, row in enumerate(_parsed(file, 1, text), 1))
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield file, number, _parsed(file, number, line)


def _parsed(file: Path, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadData(
            f"Line {number} of {file} is no JSON: {error}.", "See whether it is whole."
        ) from None


def _place(places: Places, name: str) -> str:
    if isinstance(places, str):
        return places
    if isinstance(places, Mapping):
        if name not in places:
            raise BadData(
                f"Nothing says what {name!r} is called there.", f"Add it to {sorted(places)}."
            )
        return places[name]
    return places(name)


# -- the Transformer Debugger ----------------------------------------------------------------------


def to_debugger(
    scored: Iterable[ScoredExplanation],
    directory: str | Path,
    layers: Mapping[str, int] | None = None,
) -> list[Path]:
    """Write explanations, simulations and scores as the Transformer Debugger reads them: ``LAYER/UNIT.jsonl``.

    Args:
        scored: to write.
        directory: where the folders of the layers go.
        layers: number of the layer of each point; by default that of its name.

    Returns:
        The files.

    Raises:
        BadData: a point is of no layer.
    """
    units: dict[tuple[str, int], list[ScoredExplanation]] = {}
    for one in scored:
        units.setdefault((one.explanation.point, one.explanation.unit), []).append(one)
    written = []
    for (point, unit), mine in units.items():
        layer = _layer(point, layers)
        file = Path(directory).expanduser() / str(layer) / f"{unit}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        row = {
            "dataclass_name": "NeuronSimulationResults",
            "neuron_id": {
                "dataclass_name": "NeuronId",
                "neuron_index": unit,
                "layer_index": layer,
            },
            "scored_explanations": [_debugger_explanation(one) for one in mine],
        }
        file.write_text(json.dumps(row, allow_nan=False) + "\n", encoding="utf-8")
        written.append(file)
    return written


def _layer(point: str, layers: Mapping[str, int] | None) -> int:
    if layers is not None and point in layers:
        return layers[point]
    found = _LAYER.match(point)
    if not found:
        raise BadData(f"{point} is of no layer.", "Give layers, {point: number}.")
    return int(found[1])


def _debugger_explanation(one: ScoredExplanation) -> dict[str, Any]:
    known = one.simulation
    return {
        "dataclass_name": "ScoredExplanation",
        "explanation": one.explanation.text,
        "scored_simulation": {
            "dataclass_name": "ScoredSimulation",
            "scored_sequence_simulations": [_debugger_sequence(part) for part in one.simulated],
            "ev_correlation_score": known.correlation.value if known else None,
            "rsquared_score": known.r_squared.value if known else None,
            "absolute_dev_explained_score": known.absolute_deviation.value if known else None,
        },
    }


def _debugger_sequence(part: SimulatedExcerpt) -> dict[str, Any]:
    levels, true = part.simulation.expected, [part.excerpt.values]
    uncalibrated: dict[str, Any] = {
        "dataclass_name": "SequenceSimulation",
        "tokens": list(part.excerpt.tokens),
        "expected_activations": list(levels),
        "activation_scale": "simulated_normalized_activations",
        "distribution_values": [list(range(len(row))) for row in part.simulation.probabilities]
        or [[level] for level in levels],
        "distribution_probabilities": [list(row) for row in part.simulation.probabilities]
        or [[1.0] for _ in levels],
        "uncalibrated_simulation": None,
    }
    simulation = uncalibrated
    if part.predicted:
        # As its own linear and percentile calibrations do, values of levels are those of the same line.
        simulation = {
            **uncalibrated,
            "expected_activations": list(part.predicted),
            "activation_scale": "neuron_activations",
            "distribution_values": [[value] for value in part.predicted],
            "distribution_probabilities": [[1.0] for _ in part.predicted],
            "uncalibrated_simulation": uncalibrated,
        }
    predicted = [part.predicted]
    known = bool(part.predicted)
    return {
        "dataclass_name": "ScoredSequenceSimulation",
        "sequence_simulation": simulation,
        "true_activations": list(part.excerpt.values),
        "ev_correlation_score": scores.correlation(true, [levels]).value,
        "rsquared_score": scores.r_squared(true, predicted).value if known else None,
        "absolute_dev_explained_score": scores.absolute_deviation(true, predicted).value
        if known
        else None,
    }


def from_debugger(path: str | Path, points: Places) -> list[ScoredExplanation]:
    """Read explanations with simulations and scores as the Transformer Debugger, or the release of 2023, has them.

    Args:
        path: a file, or a directory of ``LAYER/UNIT.jsonl``.
        points: what layers, by their numbers as text, are called here: a name, a table, or a function such as
            ``lambda layer: f"layers.{layer}.mlp.post_activation"``.

    Raises:
        BadData: a line is none; says which.
    """
    found: list[ScoredExplanation] = []
    for file, number, row in _rows(Path(path).expanduser(), ("*.jsonl", "*.json")):
        try:
            found += _of_debugger(row, points)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadData(
                f"Line {number} of {file} has no NeuronSimulationResults: {error!r}.",
                "Its lines have neuron_id and scored_explanations.",
            ) from None
    return found


_FORMER = {
    "neuron_index": "idx",
    "layer_index": "layer",
    "scored_explanations": "scored_explanation_or_baseline_list",
    "explanation": "explanation_or_baseline",
    "sequence_simulation": "simulation",
    "activation_scale": "unit",
}
"""Names of fields in the release of 2023."""


def _field(row: Mapping[str, Any], name: str) -> Any:
    return row[name] if name in row else row[_FORMER[name]]


def _of_debugger(row: Mapping[str, Any], points: Places) -> Iterator[ScoredExplanation]:
    which = row["neuron_id"]
    point = _place(points, str(_field(which, "layer_index")))
    unit = int(_field(which, "neuron_index"))
    for one in _field(row, "scored_explanations"):
        told = one["scored_simulation"]
        simulated = tuple(map(_sequence, told["scored_sequence_simulations"]))
        n = sum(len(part.excerpt.tokens) for part in simulated)
        names = ("ev_correlation_score", "rsquared_score", "absolute_dev_explained_score")
        correlation, r_squared, deviation = (_score(told.get(name), n) for name in names)
        simulation = SimulationScores(
            simulator="",
            method="",
            prompt="",
            part="",
            calibration=Calibration("none"),
            correlation=correlation,
            r_squared=r_squared,
            absolute_deviation=deviation,
            attempts=Attempts(len(simulated)),
        )
        said = Explanation(point, unit, str(_field(one, "explanation")))
        yield ScoredExplanation(said, "", simulation, {}, (), simulated)


def _score(value: Any, n: int) -> Score:
    if value is None or value != value:
        return undefined(n, "so it was written")
    return Score(float(value), n)


def _sequence(row: Mapping[str, Any]) -> SimulatedExcerpt:
    simulation = _field(row, "sequence_simulation")
    values = tuple(map(float, row["true_activations"]))
    excerpt = Excerpt(tuple(map(str, simulation["tokens"])), values)
    predicted: tuple[float, ...] = ()
    if _field(simulation, "activation_scale") == "neuron_activations":
        predicted = tuple(map(float, simulation["expected_activations"]))
        simulation = simulation.get("uncalibrated_simulation") or simulation
    levels = tuple(map(float, simulation["expected_activations"]))
    return SimulatedExcerpt(excerpt, Simulation(levels, TOP), predicted)
