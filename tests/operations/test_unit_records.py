"""Stored records of units, read from an atlas of the small Llama."""

from __future__ import annotations

from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_backend.in_process import ModelHere
from garcon_jupyter import errors
from garcon_jupyter.explanations import Explanation, ScoredExplanation, open_explanations
from garcon_jupyter.operations.operation import Door
from garcon_jupyter.operations.table import OPERATIONS, named
from tests import oracle

POINT = "layers.1.mlp.post_activation"
unit, search, atlases = (OPERATIONS[name] for name in ("unit", "search", "atlases"))


@pytest.fixture(scope="module")
def shelf(llama_here: ModelHere, tmp_path_factory: pytest.TempPathFactory) -> Door:
    """Two atlases: of one layer, and of two."""
    folder: Path = tmp_path_factory.mktemp("atlases")
    rows = [*oracle.PROMPT, [0, 9, 8, 7], [3, 9, 1]]
    model = garcon.connect(llama_here)
    small = model.atlas(POINT, rows[:2], folder / "small", k=2, show=False)
    large = model.atlas("layers.1-2.mlp.post_activation", rows, folder / "large", k=3, show=False)
    model.close()
    return Door(atlases={"small": small, "large": large})


def test_atlases_are_told(shelf: Door) -> None:
    told = atlases(shelf, {}).atlases
    assert [each.name for each in told] == ["small", "large"]
    assert told[0].points == {POINT: 80} and told[0].tokens == 12 and len(told[1].points) == 2


def test_a_record_is_from_the_first_that_has_it(shelf: Door) -> None:
    found = unit(shelf, {"point": POINT, "unit": 7})
    record = shelf.atlases["small"][POINT, 7]
    assert found.atlas == "small" and found.rate == record.rate
    assert [each.ids for each in found.strongest] == [each.ids for each in record.examples]
    assert [each.values for each in found.strongest] == [each.values for each in record.examples]
    assert found.moments == pytest.approx(record.moments, nan_ok=True)


def test_in_the_order_that_was_asked_for(shelf: Door) -> None:
    asked = {"point": POINT, "unit": 7, "atlases": ["large", "small"]}
    assert unit(shelf, asked).atlas == "large"


def test_falls_through_to_the_next(shelf: Door) -> None:
    found = unit(shelf, {"point": "layers.2.mlp.post_activation", "unit": 0, "examples": 1})
    assert found.atlas == "large" and len(found.strongest) == 1


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"point": POINT, "unit": 80}, "unit 80"),
        ({"point": "layers.1.mlp.post_activatio", "unit": 0}, POINT),
        ({"point": POINT, "unit": 0, "atlases": ["smal"]}, "small"),
        ({"point": POINT, "unit": 0, "atlases": ["/etc"]}, "The owner registers them"),
    ],
)
def test_what_is_not_stored(shelf: Door, asked: dict[str, object], words: str) -> None:
    with pytest.raises(errors.UnknownName, match=words):
        unit(shelf, asked)


def test_explanations(shelf: Door) -> None:
    store = open_explanations(shelf.atlases["large"])
    said = Explanation(POINT, 7, "names of rivers", model="somebody")
    store.add([ScoredExplanation(said, judge="nobody")])
    asked = named("explanations")
    (found,) = asked(shelf, {"point": POINT, "unit": 7}).explanations
    assert (found.atlas, found.text, found.model) == ("large", "names of rivers", "somebody")
    assert asked(shelf, {"words": "rivers"}).explanations == [found]
    assert asked(shelf, {"words": "seas"}).explanations == []
    assert asked(shelf, {"point": POINT, "unit": 7, "atlases": ["small"]}).explanations == []
    for wrong in ({}, {"point": POINT}, {"point": POINT, "unit": 7, "words": "rivers"}):
        with pytest.raises(ValueError, match="not both"):
            asked(shelf, wrong)


def test_search(shelf: Door) -> None:
    token = shelf.atlases["large"].text(9)
    found = search(shelf, {"token": token, "atlases": ["large"], "at_least": 0.3, "most": 4})
    wanted = shelf.atlases["large"].search(token, 0.3)[:4]
    assert [(each.point, each.unit) for each in found.units] == [(r.point, r.unit) for r in wanted]
    assert found.units, "no unit is strongest at it"
