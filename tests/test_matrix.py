"""What ``make matrix`` installs, and what it says of what came."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from garcon_jupyter.libraries.releases import MATRIX
from tests import matrix
from tests.matrix import Outcome

PAIR = MATRIX[0]


def test_the_pair_is_asked_for_and_all_else_that_is_needed() -> None:
    asked = matrix.requirements(PAIR)
    assert asked[:2] == [f"torch=={PAIR.torch}", f"transformers=={PAIR.transformers}"]
    names = [line.split(">")[0].split("=")[0] for line in asked]
    assert len(set(names)) == len(names) and {"ipykernel", "pytest", "datasets"} <= set(names)


def test_the_tests_are_there() -> None:
    assert all((matrix.ROOT / path).exists() for path in (*matrix.TESTS, *matrix.ON_RANKS))


def test_pairs_of_one_torch_follow_each_other() -> None:
    releases = [pair.torch for pair in matrix.chosen([])]
    changes = sum(one != other for one, other in itertools.pairwise(releases))
    assert len(releases) == len(MATRIX) and changes == len(set(releases)) - 1
    assert matrix.chosen([f"{PAIR.torch}/{PAIR.transformers}"]) == [PAIR]


@pytest.mark.parametrize(("failures", "errors"), [(0, 0), (2, 0), (0, 1)])
def test_what_pytest_wrote_is_read(failures: int, errors: int, tmp_path: Path) -> None:
    told = tmp_path / "told.xml"
    counts = f'tests="9" failures="{failures}" errors="{errors}" skipped="1"'
    told.write_text(f"<testsuites><testsuite {counts}/></testsuites>")
    found = matrix.outcome(PAIR, told, 90.0)
    assert (found.passed, found.failed) == (8 - failures - errors, failures + errors)
    assert found.well == (not failures and not errors)
    assert "1.5" in matrix.table([found]).splitlines()[1]


def test_a_pair_without_tests_has_not_passed() -> None:
    nothing = Outcome("1.0", "1.0", trouble="no test ran")
    assert not nothing.well and not Outcome("1.0", "1.0").well
    assert matrix.table([nothing]).endswith("no test ran")
