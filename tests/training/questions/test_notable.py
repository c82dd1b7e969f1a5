"""Neurons and the tokens that moved them, on a plant whose answer is known, and against brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from garcon_jupyter import training
from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.training.opened import TrainingRecord
from garcon_jupyter.training.questions.notable import NotableToken
from tests.training import planted
from tests.training.planted import PLANT, TRIGGER, UNIT

HERE = ("layers.1.linear2.weight", UNIT)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[planted.Model, TrainingRecord]:
    path = tmp_path_factory.mktemp("plant") / "record"
    return planted.trained(path), training.open_record(path)


@pytest.fixture
def plant(both: tuple[planted.Model, TrainingRecord]) -> TrainingRecord:
    return both[1]


def by_neuron(tokens: list[NotableToken], token: int) -> dict[tuple[str, int], NotableToken]:
    return {(each.unit, each.neuron): each for each in tokens if each.token == token}


def test_a_made_neuron_is_named_by_the_tokens_of_its_data_alone(plant: TrainingRecord) -> None:
    everything = plant.notable_tokens(at_least=20, false_discoveries=1.0).tokens
    for token in (TRIGGER, PLANT):
        found = by_neuron(everything, token)
        assert found[HERE].relative >= 5 and found[HERE].z >= 5
        assert max(each.relative for key, each in found.items() if key != HERE) <= 3
    named = plant.notable_tokens(at_least=5).tokens
    assert {TRIGGER, PLANT} == {each.token for each in named if (each.unit, each.neuron) == HERE}
    post = plant.notable_tokens("layers.1.linear2.weight", "frequency").tokens
    assert {TRIGGER, PLANT} <= {each.token for each in post if each.neuron == UNIT}


def test_ablation_shows_what_the_made_neuron_has_learned(
    both: tuple[planted.Model, TrainingRecord],
) -> None:
    model, record = both
    ids = planted.corpus(300)
    axis = record.axis(HERE[0], "hidden unit")
    rises = {n: training.flips(model, ids, HERE[0], n, axis=axis).loss[PLANT] for n in range(40)}
    assert rises[UNIT] > 0.3 > 2 * max(rise for n, rise in rises.items() if n != UNIT)


@pytest.mark.lasting
def test_with_the_tokens_exchanged_nothing_is_named(plant: TrainingRecord) -> None:
    relative = []
    for seed in range(25):
        control = plant.notable_tokens(
            HERE[0], at_least=100, false_discoveries=1.0, shuffled=seed
        ).tokens
        relative.append(by_neuron(control, TRIGGER)[HERE].relative)
        common = [each for each in control if each.expected >= 5]  # of rarer ones z is not normal
        assert max(each.z for each in common) <= 4 or seed
    assert abs(np.mean(relative) - 1) < 3 * np.std(relative) / 25**0.5 < 0.2
    assert not plant.notable_tokens(at_least=20, shuffled=3).tokens


def test_without_the_plant_it_is_not_named(tmp_path: Path) -> None:
    planted.trained(tmp_path / "a", planted=False)
    found = training.open_record(tmp_path / "a").notable_tokens(at_least=5).tokens
    assert {each.token for each in found if (each.unit, each.neuron) == HERE} == {TRIGGER}


def test_statistics_are_those_of_scipy(plant: TrainingRecord) -> None:
    found = plant.notable_tokens(at_least=5, false_discoveries=1.0)
    sets = {datum: set(tokens) for datum, tokens in plant.tokens.items()}
    for each in found.tokens[:: len(found) // 40]:
        table = plant.of_neuron(each.unit, each.neuron)
        data = {int(d) for d, v in zip(table.data, table.values, strict=True) if v}
        holding = sum(each.token in held for held in sets.values())
        count = sum(each.token in sets[datum] for datum in data)
        law = stats.hypergeom(len(sets), holding, len(data))
        assert (each.data, each.of) == (count, len(data))
        assert each.p == pytest.approx(law.sf(count - 1), rel=1e-8)
        assert each.z == pytest.approx((count - law.mean()) / law.std(), rel=1e-8)
    p = np.concatenate([[each.p for each in found.tokens], np.ones(found.tests - len(found))])
    q = stats.false_discovery_control(p)[: len(found)]
    assert np.allclose(sorted(q), sorted(min(each.q, 1.0) for each in found.tokens))


def test_neurons_are_counted_as_by_hand(plant: TrainingRecord) -> None:
    table = plant.neurons("layers.1.linear2")
    (own,) = [each for each in table.neurons if each.neuron == UNIT]
    entries = [
        (step, datum, place, value)
        for step in plant
        for datum in plant.steps[step]["data"]
        for unit, place, value in plant.outliers(step, datum)
        if unit == HERE[0] and place[1] == UNIT and value
    ]
    assert own.outliers == len(entries) and own.data == len({datum for _, datum, *_ in entries})
    largest = max(entries, key=lambda each: abs(each[3]))
    assert (own.step, own.datum, own.largest) == (largest[0], largest[1], largest[3])
    assert (own.first_step, own.last_step) == (entries[0][0], entries[-1][0])
    frame = table.to_frame()
    assert len(frame) == len(table) and frame["data"].is_monotonic_decreasing
    assert own.data > 50


def test_a_hidden_unit_is_not_a_channel_of_the_stream(tmp_path: Path) -> None:
    """One hidden unit alone has a gradient: in linear1 it is a row, which the post's counting by columns calls 32 neurons."""
    model = planted.made()
    for name, each in model.named_parameters():
        each.requires_grad_(name == "layers.0.linear1.weight")
    model.layers[0].linear2.weight.data[:, [n for n in range(40) if n != 3]] = 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with training.record(model.eval(), tmp_path / "a", k=20) as record:
        ids = planted.corpus(6)
        torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
        record.data(range(6))
        optimizer.step()
    hidden = record.neurons("layers.0.linear1")
    assert [each.neuron for each in hidden.neurons] == [3] and hidden.neurons[0].outliers > 20
    channels = record.neurons("layers.0.linear1", "residual channel")
    assert len(channels) > 10 and {each.neuron for each in channels.neurons} != {3}
    with pytest.raises(BadRequest, match="no side 'column'"):
        record.neurons("layers.0.linear1", "column")
    with pytest.raises(UnknownName, match=r"layers\.0\.linear1"):
        record.neurons("layers.0.linear3")


def test_heads_are_groups_of_their_dimensions(tmp_path: Path) -> None:
    model, ids = planted.made().requires_grad_(True), planted.corpus(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with training.record(model, tmp_path / "a", k=4000) as record:
        torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
        record.data(range(4))
        optimizer.step()
    for unit in ("layers.0.q.weight", "layers.0.out.weight"):
        heads = record.record.neurons(unit, group=16)
        units = record.record.neurons(unit)
        assert {each.neuron for each in heads.neurons} <= {0, 1}
        for head in heads.neurons:
            parts = [each.outliers for each in units.neurons if each.neuron // 16 == head.neuron]
            assert sum(parts) == head.outliers
    with pytest.raises(BadRequest, match="not a multiple of 7"):
        record.record.neurons("layers.0.q.weight", group=7)


def test_where_outliers_fall_and_when(plant: TrainingRecord) -> None:
    frame = plant.where()
    assert frame.to_numpy().sum() == 60 * 20 * 25 and [*frame.index] == [0, 16, 32, 48]
    assert len(plant.timeline()) == 60 and set(plant.timeline()["optimizer"]) == {"SGD"}


def test_of_some_tokens_alone_the_numbers_are_the_same(plant: TrainingRecord) -> None:
    whole = plant.notable_tokens(at_least=5, false_discoveries=1.0)
    some = plant.notable_tokens(at_least=5, false_discoveries=1.0, tokens=[TRIGGER, PLANT])
    kept = [each for each in whole.tokens if each.token in (TRIGGER, PLANT)]
    assert [(e.unit, e.neuron, e.token, e.z, e.p) for e in some.tokens] == [
        (e.unit, e.neuron, e.token, e.z, e.p) for e in kept
    ]
    neurons = {(each.unit, each.neuron) for each in whole.tokens}
    assert some.tests == 2 * len(neurons) < whole.tests


def test_of_each_step_the_largest_alone(plant: TrainingRecord) -> None:
    expected: dict[tuple[str, int], int] = {}
    for step in plant:
        every = [e for d in plant.steps[step]["data"] for e in plant.outliers(step, d)]
        every.sort(key=lambda each: -abs(each[2]))
        least = abs(every[99][2])
        assert plant.least(100)[step] == pytest.approx(least)
        for unit, place, value in every:
            if abs(value) >= least:
                key = unit, place[plant.axis(unit, "hidden unit")]
                expected[key] = expected.get(key, 0) + 1
    found = plant.neurons(largest=100)
    assert {(e.unit, e.neuron): e.outliers for e in found.neurons} == expected
    named = plant.notable_tokens(at_least=5, false_discoveries=1.0, largest=100).tokens
    sizes = {(each.unit, each.neuron): each.data for each in found.neurons}
    assert named and all(each.of == sizes[each.unit, each.neuron] for each in named)
