"""Results of experiments: axes with names, places, tables, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter.experiments.result import ExperimentResult, load

VALUES = torch.tensor([[0.5, float("nan"), -2.0], [1.5, 1.0, 0.0]])


@pytest.fixture
def found() -> ExperimentResult:
    axes = {"layer": (4, 9), "token": ("The", " cat", "The")}
    return ExperimentResult(
        "patch", VALUES, axes, "a share", {"of": "tiny"}, {"chance": torch.tensor(0.25)}
    )


def test_places_by_their_labels(found: ExperimentResult) -> None:
    assert found.at(layer=9, token=" cat") == 1.0
    assert torch.equal(found.at(layer=9), VALUES[1])
    with pytest.raises(garcon.BadRequest, match="no axis 'head'.*layer, token"):
        found.at(head=1)
    with pytest.raises(garcon.BadRequest, match="'layer' has no place 5.*4, 9"):
        found.at(layer=5)


def test_the_strongest(found: ExperimentResult) -> None:
    """By value or by size; what is no number is none of them."""
    assert found.strongest(2) == [
        ({"layer": 9, "token": "The"}, 1.5),
        ({"layer": 9, "token": " cat"}, 1.0),
    ]
    assert found.strongest(1, magnitude=True) == [({"layer": 4, "token": "The"}, -2.0)]
    assert len(found.strongest(100)) == 5


def test_a_table(found: ExperimentResult) -> None:
    table = found.to_frame()
    assert list(table.columns) == ["layer", "token", "value"] and len(table) == 5
    assert table.loc[table.layer == 9, "value"].tolist() == [1.5, 1.0, 0.0]


def test_saved_and_loaded(found: ExperimentResult, tmp_path: Path) -> None:
    again = load(found.save(tmp_path / "found.npz"))
    assert torch.equal(again.values.nan_to_num(7.0), VALUES.nan_to_num(7.0))
    assert again.axes == found.axes and again.facts == found.facts and again.says == found.says
    assert again.experiment == "patch" and torch.equal(again.more["chance"], torch.tensor(0.25))
    assert [file.name for file in tmp_path.iterdir()] == ["found.npz"]


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(garcon.BadRequest, match="cannot be read: No such file"):
        load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", values=np.zeros(3))
    (tmp_path / "text.npz").write_text("numbers")
    np.savez(tmp_path / "objects.npz", about=np.array([{}], dtype=object))
    for name in ("other", "text", "objects"):
        with pytest.raises(garcon.BadRequest, match="no result of an experiment"):
            load(tmp_path / f"{name}.npz")


def test_axes_must_fit() -> None:
    with pytest.raises(garcon.BadRequest, match=r"shape \[2, 3\] have axes layer of \[2\] places"):
        ExperimentResult("patch", VALUES, {"layer": (0, 1)})
    with pytest.raises(garcon.BadRequest, match="axes none"):
        ExperimentResult("patch", VALUES, {})


def test_it_says_what_it_is(found: ExperimentResult) -> None:
    assert repr(found) == "<patch: layer 2 × token 3; a share>"
    assert repr(ExperimentResult("total", torch.tensor(3.0), {})) == "<total: one number>"
