"""A circuit by itself is the run in which plain hooks ablate all that is outside of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest, experiments
from garcon_jupyter.experiments.result import ExperimentResult
from tests.experiments.activation_patching.by_loop import Loop, close
from tests.experiments.activation_patching.test_patch import (
    ANSWERS,
    CLEAN,
    CORRUPTED,
    HEADS,
    LAYERS,
    MANY,
    OTHERS,
    WIDTH,
    projected,
)
from tests.oracle import Plain

Head = tuple[int, int]


@pytest.fixture
def loop(plain: Plain) -> Loop:
    return Loop(plain, ANSWERS)


@pytest.fixture
def found() -> ExperimentResult:
    """An order of heads, by size: the strongest is negative."""
    values = torch.randn(LAYERS, HEADS, generator=torch.Generator().manual_seed(4))
    values[2, 1] = -9.0
    axes = {"layer": tuple(range(LAYERS)), "head": tuple(range(HEADS))}
    return ExperimentResult("attribute", values, axes, facts={"points": "layers.*.attn.z"})


def order(found: ExperimentResult) -> list[Head]:
    return [
        divmod(at, HEADS) for at in found.values.abs().flatten().argsort(descending=True).tolist()
    ]


def ablated(loop: Loop, run: list[int], outside: list[Head], values: dict[int, Tensor]) -> float:
    """The metric of a run whose heads outside of a circuit have other values."""
    given: dict[Any, Any] = {}
    for layer in {layer for layer, _ in outside}:
        heads = [head for at, head in outside if at == layer]
        units = [head * WIDTH + unit for head in heads for unit in range(WIDTH)]
        place = (slice(None), slice(None), units)
        given[projected(layer)] = (place, values[layer][place])
    return loop.patched(run, given)


def corrupted_values(loop: Loop, runs: list[list[int]]) -> dict[int, Tensor]:
    return {
        layer: torch.cat([loop.value(run, projected(layer)) for run in runs]).mean(0, keepdim=True)
        for layer in range(LAYERS)
    }


def test_what_is_outside_is_ablated(
    either: garcon.RemoteModel, loop: Loop, found: ExperimentResult
) -> None:
    sizes = [0, 3, 11, LAYERS * HEADS]
    kept = experiments.faithfulness(either, found, [CLEAN], [CORRUPTED], sizes, answers=ANSWERS)
    values, heads = corrupted_values(loop, [CORRUPTED]), order(found)
    shares = [
        loop.scaled(ablated(loop, CLEAN, heads[size:], values), CLEAN, CORRUPTED)
        for size in sizes[:-1]
    ]
    assert close(kept.at(chosen="strongest"), [*shares, 1.0])
    assert kept.at(chosen="strongest", cells=24) == 1.0  # to the last bit: nothing is ablated
    inside = loop.scaled(ablated(loop, CLEAN, heads[:11], values), CLEAN, CORRUPTED)
    assert not close(kept.at(chosen="strongest", cells=11), inside, 1e-2), "the circuit itself"
    assert list(kept.axes) == ["chosen", "cells"] and kept.axes["cells"] == tuple(sizes)
    assert kept.facts["circuit"][0] == {"layer": 2, "head": 1} and len(kept.facts["circuit"]) == 11
    assert len(either.recordings()) == 0


def test_the_control_is_of_the_same_sizes(
    rmodel: garcon.RemoteModel, found: ExperimentResult
) -> None:
    def at_random(seed: int) -> Tensor:
        kept = experiments.faithfulness(
            rmodel, found, [CLEAN], [CORRUPTED], [0, 5, 24], answers=ANSWERS, seed=seed
        )
        assert close(kept.at(cells=0)[0], kept.at(cells=0)[1], 1e-5)
        return kept.at(chosen="at random")

    first, again, other = at_random(1), at_random(1), at_random(2)
    assert torch.equal(first, again) and first[2] == other[2] == 1.0
    assert not close(first[1], other[1], 1e-3)


def test_the_mean_of_several_pairs(
    rmodel: garcon.RemoteModel, loop: Loop, found: ExperimentResult
) -> None:
    options: dict[str, Any] = {"sizes": [4], "answers": ANSWERS, "replace": "mean"}
    kept = experiments.faithfulness(rmodel, found, MANY, OTHERS, **options)
    values = corrupted_values(loop, OTHERS)
    shares = [
        loop.scaled(ablated(loop, clean, order(found)[4:], values), clean, corrupted)
        for clean, corrupted in zip(MANY, OTHERS, strict=True)
    ]
    assert list(kept.axes) == ["pair", "chosen", "cells"]
    assert close(kept.at(chosen="strongest")[:, 0], shares)


def test_a_threshold_is_a_size(rmodel: garcon.RemoteModel, found: ExperimentResult) -> None:
    by_threshold = experiments.faithfulness(
        rmodel, found, [CLEAN], [CORRUPTED], threshold=1.0, answers=ANSWERS
    )
    size = int((found.values.abs() >= 1.0).sum())
    assert by_threshold.axes["cells"] == (size,) and len(by_threshold.facts["circuit"]) == size


def test_what_was_found_of_pairs_and_positions(rmodel: garcon.RemoteModel) -> None:
    """The order is that of the mean over pairs; cells that are in no text are in no circuit."""
    by = ("layer", "position")
    found = experiments.patch(rmodel, MANY, OTHERS, "layers.1-2.resid_pre", by, ANSWERS)
    kept = experiments.faithfulness(rmodel, found, MANY[:1], OTHERS[:1], answers=ANSWERS)
    assert kept.axes["cells"] == (0, 1, 2, 5, 10)
    mean = found.values.mean(0)
    at = int(mean.abs().argmax())
    assert kept.facts["circuit"][0] == {"layer": (1, 2)[at // 5], "position": at % 5}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sizes": [25]}, "Give numbers from 0 to 24"),
        ({"sizes": [-1]}, "no circuits of 24 cells"),
        ({"sizes": []}, "no circuits of 24 cells"),
        ({"sizes": [1], "threshold": 0.5}, "Leave one of them out"),
        ({"replace": "mean"}, "Give two pairs at least"),
    ],
)
def test_what_makes_no_sense(
    rmodel: garcon.RemoteModel, found: ExperimentResult, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadRequest, match=says):
        experiments.faithfulness(rmodel, found, [CLEAN], [CORRUPTED], answers=ANSWERS, **options)


def test_what_has_no_cells_of_this_model(
    rmodel: garcon.RemoteModel, found: ExperimentResult
) -> None:
    scores = ExperimentResult("head_scores", found.values, found.axes)
    with pytest.raises(BadRequest, match="'head_scores' has no cells"):
        experiments.faithfulness(rmodel, scores, [CLEAN], [CORRUPTED], answers=ANSWERS)
    smaller = ExperimentResult(
        "attribute", found.values[:, :2], {**found.axes, "head": (0, 1)}, facts=found.facts
    )
    with pytest.raises(BadRequest, match="layer 4 × head 2, and this model .* layer 4 × head 6"):
        experiments.faithfulness(rmodel, smaller, [CLEAN], [CORRUPTED], answers=ANSWERS)
