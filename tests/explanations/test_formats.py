"""Explanations in other people's layouts, written and read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from garcon_jupyter.errors import BadData
from garcon_jupyter.explanations import (
    Explanation,
    ScoredExplanation,
    explain,
    from_debugger,
    from_neuronpedia,
    to_debugger,
    to_neuronpedia,
)
from tests.explanations.conftest import as_reply, known_levels, made_record, simulating

POINT = "layers.7.mlp.post_activation"
SAID = [
    Explanation(POINT, 3, "Städte \u2014 “cities”", "a model", "oai_token-act-pair"),
    Explanation(POINT, 12, "days", "a model", "oai_token-act-pair"),
]


@pytest.mark.parametrize("name", ["all.jsonl", "batch-0.jsonl.gz", "all.json"])
def test_neuronpedias_export_is_written_and_read(tmp_path: Path, name: str) -> None:
    path = to_neuronpedia(SAID, tmp_path / name, "gpt2-small", "7-mlp")
    data = path.read_bytes()
    text = (gzip.decompress(data) if name.endswith("gz") else data).decode()
    rows = json.loads(text) if name.endswith("json") else [json.loads(r) for r in text.splitlines()]
    assert rows[0] == {
        "modelId": "gpt2-small",
        "layer": "7-mlp",
        "index": "3",
        "description": "Städte \u2014 “cities”",
        "explanationModelName": "a model",
        "typeName": "oai_token-act-pair",
    }
    for points in (POINT, {"7-mlp": POINT}, lambda layer: f"layers.{layer[0]}.mlp.post_activation"):
        assert from_neuronpedia(path, points) == SAID
    assert from_neuronpedia(tmp_path, POINT) == SAID


def test_lines_with_more_in_them_are_read_and_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    row = {"modelId": "m", "layer": "7-mlp", "index": 5, "description": "x", "umap_x": 0.1}
    path.write_text(f"{json.dumps(row)}\n\n")
    assert from_neuronpedia(path, POINT) == [Explanation(POINT, 5, "x")]
    for wrong in ({**row, "index": "five"}, {**row, "description": None}, {"layer": "7"}, 3):
        path.write_text(f"{json.dumps(row)}\n{json.dumps(wrong)}\n")
        with pytest.raises(BadData, match=r"Line 2 of .*some.jsonl"):
            from_neuronpedia(path, POINT)
    path.write_text('{"modelId":')
    with pytest.raises(BadData, match=r"Line 1 of .* is no JSON"):
        from_neuronpedia(path, POINT)
    path.write_text(json.dumps(row))
    with pytest.raises(BadData, match="Nothing says what '7-mlp' is called"):
        from_neuronpedia(path, {"8-mlp": POINT})
    with pytest.raises(BadData, match="cannot be read"):
        from_neuronpedia(tmp_path / "missing.jsonl", POINT)


@pytest.fixture(scope="module")
def scored() -> list[ScoredExplanation]:
    """Of a simulator that is right up to noise."""
    record = made_record(4, POINT)
    known = known_levels(record)
    rng = np.random.default_rng(0)

    def answer(tokens: tuple[str, ...], explanation: str) -> str:
        noisy = np.clip(np.array(known[tokens]) + rng.integers(-2, 3, len(tokens)), 0, 10)
        return as_reply(tokens, noisy.tolist())

    found = explain([record], with_=simulating(answer), score=["simulation"], show=False)
    return list(found)


def read_by_the_debugger(path: Path) -> dict[str, Any]:
    """One line of JSON, which names its classes; NaN is no JSON."""
    (line,) = path.read_text().splitlines()
    found: dict[str, Any] = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    return found


FIELDS = {
    "NeuronSimulationResults": {"neuron_id", "scored_explanations"},
    "NeuronId": {"neuron_index", "layer_index"},
    "ScoredExplanation": {"explanation", "scored_simulation"},
    "ScoredSimulation": {
        *("scored_sequence_simulations", "ev_correlation_score", "rsquared_score"),
        "absolute_dev_explained_score",
    },
    "ScoredSequenceSimulation": {
        *("sequence_simulation", "true_activations", "ev_correlation_score", "rsquared_score"),
        "absolute_dev_explained_score",
    },
    "SequenceSimulation": {
        *("tokens", "expected_activations", "activation_scale", "distribution_values"),
        *("distribution_probabilities", "uncalibrated_simulation"),
    },
}
"""Fields of the Transformer Debugger's classes (explanations.py, activations.py)."""


def check_fields(value: Any) -> None:
    if isinstance(value, list):
        for one in value:
            check_fields(one)
    if isinstance(value, dict):
        assert set(value) - {"dataclass_name"} == FIELDS[value["dataclass_name"]]
        for one in value.values():
            check_fields(one)


def test_the_debuggers_files_are_written_and_read(
    scored: list[ScoredExplanation], tmp_path: Path
) -> None:
    (path,) = to_debugger(scored, tmp_path)
    assert path == tmp_path / "7" / "4.jsonl"
    row = read_by_the_debugger(path)
    check_fields(row)
    simulation = row["scored_explanations"][0]["scored_simulation"]
    assert simulation["ev_correlation_score"] == scored[0].scores["correlation"].value
    part = simulation["scored_sequence_simulations"][0]
    true, expected = part["true_activations"], part["sequence_simulation"]["expected_activations"]
    assert part["ev_correlation_score"] == pytest.approx(np.corrcoef(true, expected)[0, 1])
    for places in (POINT, {"7": POINT}, lambda layer: f"layers.{layer}.mlp.post_activation"):
        (again,) = from_debugger(tmp_path, places)
        assert (again.explanation.point, again.explanation.unit) == (POINT, 4)
        assert again.explanation.text == scored[0].explanation.text
        for name, score in scored[0].scores.items():
            assert again.scores[name] == score
        for mine, theirs in zip(again.simulated, scored[0].simulated, strict=True):
            assert mine.excerpt.tokens == theirs.excerpt.tokens
            assert mine.excerpt.values == theirs.excerpt.values
            assert mine.simulation.expected == theirs.simulation.expected
            assert mine.predicted == theirs.predicted


def test_files_of_2023_are_read_by_their_former_names(tmp_path: Path) -> None:
    path = tmp_path / "9.jsonl"
    sequence = {
        "dataclass_name": "SequenceSimulation",
        "tokens": ["a", " b"],
        "expected_activations": [0.5, 3.0],
        "unit": "simulated_normalized_activations",
        "distribution_values": [[0], [3]],
        "distribution_probabilities": [[1.0], [1.0]],
        "response": {},
    }
    scored_sequence = {
        "simulation": sequence,
        "true_activations": [0.0, 2.0],
        "ev_correlation_score": 1.0,
    }
    row = {
        "neuron_id": {"layer": 7, "idx": 9},
        "scored_explanation_or_baseline_list": [
            {
                "explanation_or_baseline": "the second of two",
                "scored_simulation": {
                    "scored_sequence_simulations": [scored_sequence],
                    "ev_correlation_score": float("nan"),
                },
            }
        ],
    }
    path.write_text(json.dumps(row))
    (one,) = from_debugger(path, POINT)
    assert one.explanation == Explanation(POINT, 9, "the second of two")
    assert one.simulated[0].simulation.expected == (0.5, 3.0)
    assert one.scores["correlation"].value is None  # and neither NaN nor 0
    path.write_text('{"neuron_id": {"layer": 7}}')
    with pytest.raises(BadData, match=r"Line 1 of .*9.jsonl"):
        from_debugger(path, POINT)
    with pytest.raises(BadData, match="of no layer"):
        to_debugger([ScoredExplanation(Explanation("embed.out", 1, "x"))], tmp_path)


def test_what_was_imported_is_scored_as_it_is(tmp_path: Path) -> None:
    record = made_record(4, POINT)
    said = Explanation(POINT, 4, "what others say", "their model")
    path = to_neuronpedia([said], tmp_path / "x.jsonl", "m", "7")
    known = known_levels(record)
    model = simulating(lambda tokens, explanation: as_reply(tokens, known[tokens]))
    imported = from_neuronpedia(path, POINT)
    (one,) = explain([record], judge_with=model, said=imported, score=["simulation"], show=False)
    assert one.explanation.text == "what others say"
    assert (one.explanation.model, one.explanation.prompt) == ("their model", "oai_token-act-pair")
    assert one.explanation.record == record.digest
    assert one.scores["correlation"].value == pytest.approx(1.0)
