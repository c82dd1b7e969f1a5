"""Tuned lenses against torch's own optimiser on plain transformers, in float64, and against the published form."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest, experiments
from garcon_jupyter.experiments.lenses.tuned_lens import TunedLens
from tests.experiments.lenses.by_hand import divergences, doubled, trained
from tests.oracle import Plain, close

ROWS = torch.randint(3, 259, (5, 8), generator=torch.Generator().manual_seed(0))
OPTIONS: dict[str, Any] = {"steps": 4, "tokens_per_step": 16, "length": 8, "batch_tokens": 8}


@pytest.fixture(scope="module")
def model(plain: Plain) -> Any:
    return doubled(plain)


@pytest.fixture(scope="module")
def lens() -> TunedLens:
    """One that nobody trained."""
    drawn = torch.Generator().manual_seed(2)
    maps = {
        layer: (torch.randn(48, 48, generator=drawn) / 20, torch.randn(48, generator=drawn) / 5)
        for layer in range(-1, 3)
    }
    return TunedLens.of(maps, {"num_hidden_layers": 4, "base_model_name_or_path": "tiny"})


def test_it_is_trained_as_the_package_does(either: garcon.RemoteModel, model: Any) -> None:
    found = experiments.train_tuned_lens(either, ROWS, **OPTIONS)
    weights, biases = trained(model, ROWS, 4, 2)
    unbiased, _ = trained(model, ROWS, 4, 2, biased=False)
    for number in range(4):
        one = found.maps[number - 1]
        assert one.bias is not None
        assert close(one.weight, weights[number], 1e-4) and close(one.bias, biases[number], 1e-4)
        assert not close(one.weight, unbiased[number], 1e-3)
        if number:
            assert not close(found.maps[number - 2].weight, weights[number], 0.1)
    assert len(either.recordings()) == 0 and found.facts["steps done"] == 4


def test_it_goes_on_where_it_was_interrupted(
    rmodel: garcon.RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = experiments.train_tuned_lens(rmodel, ROWS, [0, 2], **OPTIONS)
    forward, asked = rmodel.forward, [0]

    def interrupted(*given: Any, **options: Any) -> Any:
        asked[0] += 1
        if asked[0] == 15:
            raise KeyboardInterrupt
        return forward(*given, **options)

    monkeypatch.setattr(rmodel, "forward", interrupted)
    part = experiments.train_tuned_lens(rmodel, ROWS, [0, 2], **OPTIONS)
    assert 1 <= part.facts["steps done"] < 4
    assert not torch.equal(part.maps[0].weight, whole.maps[0].weight)
    rest = experiments.train_tuned_lens(rmodel, ROWS, [0, 2], start=part, **OPTIONS)
    for layer in (0, 2):
        assert close(rest.maps[layer].weight, whole.maps[layer].weight, 1e-6)
    with pytest.raises(BadRequest, match="has had 4 steps, and steps=4"):
        experiments.train_tuned_lens(rmodel, ROWS, [0, 2], start=rest, **OPTIONS)
    with pytest.raises(BadRequest, match=r"has layers \[0, 2\], and what is asked for is \[1\]"):
        experiments.train_tuned_lens(rmodel, ROWS, 1, start=rest, **OPTIONS)


def test_a_step_is_taken_by_all_layers_or_none(
    rmodel: garcon.RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = experiments.train_tuned_lens(rmodel, ROWS, [0, 2], **OPTIONS)
    forward, steps = rmodel.forward, [0]

    def interrupted(tokens: Any, probes: Any, **options: Any) -> Any:
        descends = probes[0].spec.code.name.endswith("descend")
        steps[0] += descends
        half = descends and steps[0] == 1
        found = forward(tokens, probes=probes[:1] if half else probes, **options)
        if half:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(rmodel, "forward", interrupted)
    part = experiments.train_tuned_lens(rmodel, ROWS, [0, 2], **OPTIONS)
    assert part.facts["steps done"] == 1
    monkeypatch.undo()
    rest = experiments.train_tuned_lens(rmodel, ROWS, [0, 2], start=part, **OPTIONS)
    assert all(close(rest.maps[n].weight, one.maps[n].weight, 1e-6) for n in (0, 2))


def test_a_text_is_read_by_it(either: garcon.RemoteModel, model: Any, lens: TunedLens) -> None:
    found = experiments.read_lens(either, ROWS[:1], lens).at(statistic="KL to the last")[:3]
    maps, biases = lens.maps, {n: one.bias for n, one in lens.maps.items() if one.bias is not None}
    right = divergences(model, ROWS[0], lambda layer, x: maps[layer](x))
    assert close(found, right, 1e-4)
    for wrong in (
        lambda layer, x: maps[layer](x) - biases[layer],
        lambda layer, x: maps[layer](x) - x,
        lambda layer, x: x + x @ maps[layer].weight.double() + biases[layer],
        lambda layer, x: maps[layer - 1](x),
    ):
        assert not close(found, divergences(model, ROWS[0], wrong), 1e-2)


def test_files_are_those_of_the_package(
    rmodel: garcon.RemoteModel, plain: Plain, lens: TunedLens, tmp_path: Path
) -> None:
    found = experiments.train_tuned_lens(rmodel, ROWS, 1, **{**OPTIONS, "steps": 1})
    directory = found.save(tmp_path / "one")
    state = torch.load(directory / "params.pt", weights_only=True)
    assert list(state) == [f"{n}.{part}" for n in range(4) for part in ("weight", "bias")]
    assert torch.equal(state["2.weight"], found.maps[1].weight) and not state["1.weight"].any()
    config = json.loads((directory / "config.json").read_text())
    printed = np.array_str(plain.module("lm_head").weight.detach().numpy(), precision=1)
    assert config["unembed_hash"] == hashlib.sha256(printed.encode()).hexdigest()
    told = ("d_model", "num_hidden_layers", "bias", "lens_type")
    assert [config[key] for key in told] == [48, 4, True, "linear_tuned_lens"]
    again = experiments.load_lens(rmodel, directory)
    assert sorted(again.maps) == [1]
    whole = experiments.load_lens(rmodel, lens.save(tmp_path / "whole"))
    assert sorted(whole.maps) == [-1, 0, 1, 2]
    assert all(torch.equal(whole.maps[n].weight, lens.maps[n].weight) for n in lens.maps)


@pytest.mark.parametrize(
    ("config", "state", "wrong"),
    [
        ({"d_model": None}, {}, "d_model is None, no number"),
        ({"lens_type": "causal"}, {}, "lens_type is 'causal'"),
        ({"num_hidden_layers": 3}, {}, "3.bias is too much"),
        ({"num_hidden_layers": 5}, {}, "4.bias is missing"),
        ({"bias": False}, {}, "0.bias is too much"),
        ({"d_model": 64}, {}, r"0.weight is \[48, 48\], not \[64, 64\]"),
        ({}, {"1.bias": torch.zeros(5)}, "1.bias is no bias of 48 numbers"),
        ({}, {"1.weight": torch.full((48, 48), torch.nan)}, "1.weight holds infinities or NaN"),
    ],
)
def test_files_that_contradict_are_refused(
    rmodel: garcon.RemoteModel, lens: TunedLens, tmp_path: Path, config: Any, state: Any, wrong: str
) -> None:
    directory = lens.save(tmp_path / "lens")
    told = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**told, **config}))
    kept = torch.load(directory / "params.pt", weights_only=True)
    torch.save({**kept, **state}, directory / "params.pt")
    with pytest.raises(BadRequest, match=wrong):
        experiments.load_lens(rmodel, directory)


def test_a_lens_of_another_model_is_refused(
    rmodel: garcon.RemoteModel, lens: TunedLens, tmp_path: Path
) -> None:
    other = TunedLens.of(
        {n: (torch.zeros(48, 48), torch.zeros(48)) for n in range(-1, 2)}, {"num_hidden_layers": 3}
    )
    with pytest.raises(BadRequest, match="num_hidden_layers of this tuned lens is 3, and the"):
        experiments.load_lens(rmodel, other.save(tmp_path / "other"))
    unlike = TunedLens.of(
        {n: (one.weight, one.bias) for n, one in lens.maps.items()},
        {"num_hidden_layers": 4, "unembed_hash": "0" * 64},
    )
    with pytest.warns(UserWarning, match="unembed_hash of this tuned lens"):
        experiments.load_lens(rmodel, unlike.save(tmp_path / "unlike"))
    with pytest.raises(BadRequest, match=r"config.json cannot be read: No such file"):
        experiments.load_lens(rmodel, tmp_path)
    with pytest.raises(BadRequest, match="40 tokens in all, which do not fill a row of 128"):
        experiments.train_tuned_lens(rmodel, ROWS)
