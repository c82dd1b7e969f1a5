"""What is drawn of the members of a fleet, on models in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter.experiments.result import ExperimentResult
from garcon_jupyter.fleets.fleet import Fleet
from garcon_jupyter.fleets.labels import by_step, step_of
from tests.oracle import PROMPT, Plain, close

TEXT = PROMPT[:1]
LATER = "step 1"


@pytest.fixture(scope="module")
def fleet(series: dict[str, Path]) -> Iterator[garcon.Fleet]:
    models = {
        label: garcon.connect(open_here(path, unchecked=True)) for label, path in series.items()
    }
    lost = {"step9": garcon.ServerGone("It has ended.", "Launch it again.")}
    made = Fleet("drawn", {**models, **lost}, True)
    yield made
    made.close()


def test_neurons_are_those_with_the_strongest_values(
    fleet: garcon.Fleet, series: dict[str, Path]
) -> None:
    picture = fleet.show("layers.2.mlp.post_activation", TEXT, units=5)
    whole = {label: Plain(path).neurons(2, TEXT)[0] for label, path in series.items()}
    strength = torch.stack(list(whole.values())).abs().amax((0, 1))
    expected = sorted(strength.topk(5).indices.tolist())
    assert picture.columns == [str(unit) for unit in expected] and len(picture.rows) == 6
    for label, value in whole.items():
        shown = picture.values.at(member=label)
        assert close(torch.tensor(np.asarray(shown)), value[:, expected])
    assert picture.errors[3].startswith("ServerGone") and picture.axis == "member"
    assert np.isnan(picture.values.array[3]).all()
    for label in series:
        assert not len(fleet[label].recordings())


def test_a_reference_is_taken_away(fleet: garcon.Fleet) -> None:
    picture = fleet.show("layers.1.resid_post", TEXT, reference="step0", units=None)
    some = {label: np.asarray(picture.values.at(member=label)).any() for label in fleet.labels[:3]}
    assert some == {"step0": False, LATER: True, "again": False}
    assert "minus step0" in picture.title
    with pytest.raises(garcon.UnknownName, match="step00"):
        fleet.show("layers.1.resid_post", TEXT, reference="step00")
    with pytest.raises(garcon.BadRequest, match="has no values"):
        fleet.show("layers.1.resid_post", TEXT, reference="step9")


def test_attention_has_a_sheet_for_each_head(fleet: garcon.Fleet) -> None:
    picture = fleet.show("layers.0.attn.pattern", TEXT)
    assert picture.names == ["head", "query", "key"] and len(picture.sheets) > 1
    rows = picture.values.array[:3].sum(-1)
    assert np.allclose(rows, 1, atol=1e-5)


def test_of_units_of_heads_the_norm_is_shown(fleet: garcon.Fleet) -> None:
    def save(save_ctx: object, tensor: torch.Tensor) -> None:
        save_ctx.tensor = tensor  # type: ignore[attr-defined]

    picture = fleet.show("layers.0.attn.z", TEXT)
    model = fleet["step0"]
    model.forward(TEXT, [model.probe_points["layers.0.attn.z"].probe(save)])
    expected = model.recordings()["layers.0.attn.z"].tensor[0].norm(dim=-1)
    model.clear_recordings()
    assert close(torch.tensor(np.asarray(picture.values.at(member="step0"))), expected)
    assert picture.names[2] == "head"


def test_numbers_of_ones_own(fleet: garcon.Fleet) -> None:
    scores = {label: np.eye(2) * n for n, label in enumerate(fleet.labels)}
    picture = fleet.show({**scores, "again": ValueError("no")}, rows="layer", columns="head")
    assert picture.labels == list(fleet.labels) and picture.names[1:] == ["layer", "head"]
    assert picture.errors[2] == "ValueError: no"
    found = {
        label: ExperimentResult("x", torch.ones(1, 2), {"layer": (3,), "head": (0, 1)})
        for label in fleet.labels
    }
    drawn = fleet.show(found)
    assert drawn.rows == ["3"] and drawn.names[1:] == ["layer", "head"]
    lines = fleet.show({label: [1.0, 2.0] for label in fleet.labels})
    assert lines.values.shape == (4, 1, 2)
    with pytest.raises(garcon.UnknownName, match="step2"):
        fleet.show({"step2": np.eye(2)})
    with pytest.raises(ValueError, match="no"):
        fleet.show({"step0": ValueError("no")})
    with pytest.raises(garcon.BadRequest, match="Give text="):
        fleet.show("layers.0.attn.z")


def test_steps_are_read_from_labels() -> None:
    said = {
        "step512": 512,
        "checkpoint-1000": 1000,
        "64": 64,
        "step1000-tokens4B": 1000,
        "Step_8": 8,
    }
    assert {label: step_of(label) for label in said} == said
    assert step_of("base") is None and step_of("7B-v2") is None
    assert by_step(["step512", "main", "step8", "step64"]) == ["step8", "step64", "step512", "main"]
