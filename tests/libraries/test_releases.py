"""The table of releases, and what it says of those that are installed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from garcon_jupyter.libraries import releases
from garcon_jupyter.libraries.releases import LIBRARIES, MATRIX, minor, untested

ROOT = Path(__file__).parents[2]


def declared() -> dict[str, SpecifierSet]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = map(Requirement, project["dependencies"])
    return {each.name: each.specifier for each in requirements if each.name in LIBRARIES}


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_bounds_of_the_package_are_the_ends_of_the_table(library: str) -> None:
    assert declared()[library] == SpecifierSet(releases.specifier(library))
    assert all(getattr(pair, library) in declared()[library] for pair in MATRIX)


@pytest.mark.parametrize("library", LIBRARIES)
def test_no_minor_release_between_the_ends_is_left_out(library: str) -> None:
    numbers = [release[1] for release in releases.tested(library)]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))


def test_what_the_tests_run_with_is_a_pair() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    held = dict(line.split("==") for line in lines if "==" in line)
    assert (held["torch"], held["transformers"]) in {(p.torch, p.transformers) for p in MATRIX}


def test_both_ends_and_what_is_furthest_apart_are_among_the_pairs() -> None:
    pairs = {(minor(pair.torch), minor(pair.transformers)) for pair in MATRIX}
    (oldest, newest), (old, new) = (
        (releases.tested(library)[0], releases.tested(library)[-1]) for library in LIBRARIES
    )
    assert {(oldest, old), (newest, new), (oldest, new)} <= pairs
    assert len(pairs) == len(MATRIX)


def test_what_was_not_tested_is_said() -> None:
    assert list(untested("2.13.0+cpu", "5.23.7")) == []
    (line,) = untested("2.99.0", "5.23.0")
    assert line == f"torch 2.99.0 has not been tested with Garçon: {releases.span('torch')} have"
    both = list(untested("1.0", "4.57.1"))
    assert [line.split()[0] for line in both] == ["torch", "transformers"]
    assert len(list(untested("built from source", "5.23.0"))) == 1


def test_pairs_are_of_minor_releases() -> None:
    pair = MATRIX[1]
    assert releases.tested_together(pair.torch + "+cu132", pair.transformers)
    assert not releases.tested_together("2.14.0", "5.22.0")


def test_what_is_installed_was_tested() -> None:
    assert list(untested()) == []
    assert releases.installed("no-such-library") is None
