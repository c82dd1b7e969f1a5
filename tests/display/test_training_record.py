"""Pictures of a record of a training: what they show is what the record has, while it is written and after."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import garcon_jupyter.display
from garcon_jupyter import training
from garcon_jupyter.display.training_record import moves_of
from garcon_jupyter.errors import BadData, BadRequest
from garcon_jupyter.training.opened import TrainingRecord
from tests.training import planted
from tests.training.planted import PLANT, TRIGGER, UNIT
from tests.widgets.conftest import _read_svg as svg_in

assert garcon_jupyter.display
WEIGHT = "layers.1.linear2.weight"
TEXTS = {n: f"w{n}" for n in range(120)} | {TRIGGER: "trigger", PLANT: "plant"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[planted.Model, TrainingRecord]:
    path = tmp_path_factory.mktemp("plant") / "run.record"
    return planted.trained(path), training.open_record(path)


def test_a_neurons_moves_are_those_of_its_record(
    both: tuple[planted.Model, TrainingRecord],
) -> None:
    model, record = both
    ids = planted.corpus(100)
    flips = training.flips(model, ids, WEIGHT, UNIT, axis=1)
    widget = record.show_neuron(WEIGHT, UNIT, texts=TEXTS, flips=flips, at_least=5)
    largest: dict[tuple[int, int], float] = {}
    for step in record:
        for datum in record.steps[step]["data"]:
            for unit, place, value in record.outliers(step, datum):
                if unit == WEIGHT and place[1] == UNIT and value:
                    largest.setdefault((step, datum), value)  # the largest comes first
    assert widget.values.array.tolist() == [
        [step, pytest.approx(value)] for (step, _), value in sorted(largest.items())
    ]
    assert widget.names == [f"step {step}, datum {datum}" for step, datum in sorted(largest)]
    assert {word for word, *_ in widget.tokens} == {"trigger", "plant"} and not widget.live
    assert {each["token"]: each["said"] for each in widget.flips} == {
        TEXTS[each.token]: f"{each.flips} of {each.predicted}" for each in flips.tokens[:12]
    }
    place = flips.places(flips.tokens[0].token)[0]
    assert place[1] != place[2] and TEXTS[place[0][-1]] in widget.flips[0]["places"][0][0]
    still = ElementTree.fromstring(svg_in(widget.still()))
    circles = [each for each in still.iter() if each.tag.endswith("circle")]
    assert len(circles) == len(largest)
    signs = np.sign(widget.values.array[:, 1])
    heights = np.array([float(each.get("cy") or 0) for each in circles])
    assert heights[signs > 0].max(initial=0) < heights[signs < 0].min(initial=999)
    texts = "".join(still.itertext())
    assert "trigger" in texts and "predictions that change without it" in texts
    assert any(each.get("class") == "notable" for each in still.iter())


def test_flips_of_another_neuron_are_refused(both: tuple[planted.Model, TrainingRecord]) -> None:
    model, record = both
    flips = training.flips(model, planted.corpus(10), WEIGHT, 3, axis=1)
    with pytest.raises(BadRequest, match="flips are of"):
        record.show_neuron(WEIGHT, UNIT, flips=flips)
    with pytest.raises(BadRequest, match="no hidden unit 40"):
        record.show_neuron(WEIGHT, 40)


def test_where_outliers_fall_by_weight_and_time(
    both: tuple[planted.Model, TrainingRecord],
) -> None:
    _, record = both
    widget = record.show_where()
    counts, frame = widget.values_of("outliers"), record.where()
    assert counts.axes == ("weight", "period")
    assert np.array_equal(counts.array, frame.to_numpy().T)
    shares = widget.values_of("share of the step's outliers").array
    assert np.allclose(shares.sum(0), 1)
    widget.selected_row, widget.selected_column = 0, 1
    entries = [
        e
        for step in range(16, 32)
        for d in record.steps[step]["data"]
        for e in record.outliers(step, d)
        if e[2]
    ]
    counted = Counter(place[1] for _, place, _ in entries)
    (best, times) = counted.most_common(1)[0]
    assert widget.detail["title"] == f"{WEIGHT}, steps 16 to 31"
    assert f"{len(entries):,} outliers" in widget.detail["text"]
    assert f"with most: {best} ({times:,})" in widget.detail["text"]
    assert WEIGHT in svg_in(widget.still())


def test_a_picture_follows_a_training_that_goes_on(tmp_path: Path) -> None:
    model, path = planted.made(), tmp_path / "run.record"
    ids = planted.corpus(80)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with training.record(model, path, k=25, chunk=2) as record:

        def step(number: int) -> None:
            batch = ids[20 * number : 20 * number + 20]
            logits = model(batch)[:, :-1]
            torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), batch[:, 1:].flatten()
            ).backward()
            record.data(range(20 * number, 20 * number + 20))
            optimizer.step()
            optimizer.zero_grad()

        empty = record.record.show()
        assert empty.state["state"] == "running" and empty.summary == "0 steps, 0 data, goes on"
        step(0)
        page = record.record.show_neuron(WEIGHT, UNIT, texts=TEXTS)
        assert page.live and "1 steps" in page.subtitle
        before = len(page.names)
        step(1)
        step(2)
        page._hear(page, {"do": "look"}, [])
        empty._hear(empty, {"do": "look"}, [])
        assert page.worker.wait() and empty.worker.wait() and not page.trouble and not empty.trouble
        assert len(page.names) > before and page.names[-1].startswith("step 2")
        assert empty.summary == "3 steps, 60 data, goes on" and not empty.steered
        assert empty.drawn.count("<img") == 2
        with (
            pytest.raises(BadData, match="is being written"),
            training.record(model, path, k=25, chunk=2, step=3),
        ):
            pass
    page.refresh()
    empty.refresh()
    assert page.worker.wait() and empty.worker.wait()
    assert not page.live and empty.state["over"] and empty.summary == "3 steps, 60 data"


def test_a_selected_move_stays_when_others_come() -> None:
    from garcon_jupyter.widgets import MovesWidget, NeuronMoves

    texts = {n: ["a", "b"] for n in range(5)}
    more = NeuronMoves([[0, 1.0], [1, -2.0], [2, 3.0]], [4, 1, 2], texts, live=True)
    widget = MovesWidget(
        NeuronMoves([[1, -2.0], [2, 3.0]], [1, 2], texts, live=True), load=lambda: more
    )
    widget.selected = 0
    widget.refresh()
    assert widget.worker.wait() and widget.names[widget.selected] == "step 1, datum 1"
    widget.selected = 17
    assert widget.selected == -1
    with pytest.raises(BadRequest, match="2 moves of 1 data"):
        MovesWidget(NeuronMoves([[1, 2], [2, 3]], [1], {}))


def test_without_tokens_there_are_still_moves(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with training.record(model, tmp_path / "a", k=5) as record:
        model(torch.ones(2, 5, 3)).sum().backward()
        record.data([0, 1])
        optimizer.step()
    found = moves_of(record.record, "2.weight", 0, "hidden unit", {}, None, {})
    assert found.tokens == [] and not any(found.texts.values())
