"""Runs that take files of one queue leave none out, and share none."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.work_queue import LAST, LONG, claimed, in_order

HERE = Path(__file__).parent


class Item(pytest.Item):
    def runtest(self) -> None:
        """Nothing: it is only handed out."""


@pytest.fixture
def items(request: pytest.FixtureRequest) -> list[pytest.Item]:
    """Three tests of each file that there is, as if they had been collected."""
    return [
        Item.from_parent(request.session, name=str(number), path=file, nodeid=f"{file}::{number}")
        for file in sorted(HERE.rglob("test_*.py"))
        for number in range(3)
    ]


def test_every_test_is_of_one_run(items: list[pytest.Item], tmp_path: Path) -> None:
    one, other = claimed(items, tmp_path), claimed(items, tmp_path)
    taken: tuple[list[pytest.Item], list[pytest.Item]] = ([], [])
    for each, beside in itertools.zip_longest(one, other):
        taken[0].extend([each] if each else [])
        taken[1].extend([beside] if beside else [])
    assert sorted(i.nodeid for i in taken[0] + taken[1]) == sorted(i.nodeid for i in items)
    assert not {i.path for i in taken[0]} & {i.path for i in taken[1]}
    assert all(len({i.path for i in run}) > 20 for run in taken)


def test_a_run_ends_with_the_browser(items: list[pytest.Item], tmp_path: Path) -> None:
    mine = list(claimed(items, tmp_path))
    assert LAST in mine[-1].path.relative_to(HERE).parts
    rest = list(claimed(items, tmp_path))
    assert len(mine) + len(rest) == len(items) and rest


def test_long_files_come_first_and_are_there(items: list[pytest.Item]) -> None:
    groups = list(in_order(items))
    assert {name for name, _ in groups} >= set(LONG)
    needs = [each for _, each in groups]
    assert needs == sorted(needs, reverse=True)
    for kind in (True, False):
        names = [name for name, each in groups if each is kind]
        long = [name for name in LONG if name in names]
        assert names[: len(long)] == long
