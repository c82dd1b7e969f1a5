"""One checkpoint per family for all tests of this directory."""

from __future__ import annotations

import pytest

from tests.backend.cases import CASES, Case, load


@pytest.fixture(scope="session")
def loaded() -> dict[str, Case]:
    """The cases loaded so far."""
    return {}


@pytest.fixture(scope="session", params=CASES)
def case(
    request: pytest.FixtureRequest,
    loaded: dict[str, Case],
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:
    """Every family in turn."""
    name = request.param
    if name not in loaded:
        loaded[name] = load(name, tmp_path_factory.mktemp(name))
    return loaded[name]
