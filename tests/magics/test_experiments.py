"""Experiments as words: each shows what the function of its name finds, and keeps it in a variable."""

from __future__ import annotations

import torch

from garcon_jupyter import experiments
from garcon_jupyter.errors import BadRequest
from tests.magics.conftest import Notebook


def test_composition(connected: Notebook) -> None:
    shown = connected.run("%garcon composition V")
    assert "GridWidget composition: V-composition of two heads" in shown
    expected = experiments.composition(connected["rmodel"], "V")
    assert torch.equal(connected["found"].values.nan_to_num(), expected.values.nan_to_num())
    connected.run("%garcon composition")
    assert connected["found"].facts["kind"] == "K"
    assert "invalid choice: 'W'" in connected.fails("%garcon composition W", BadRequest)


def test_its_few_choices_are_completed(connected: Notebook) -> None:
    assert connected.completions("%garcon comp") == ["composition"]
    assert connected.completions("%garcon composition ") == ["Q", "K", "V"]
