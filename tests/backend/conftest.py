"""One checkpoint per family for all tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.backend.cases import EVERY, Case, load


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small only lose time by handing work to other threads, on a busy machine most."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def loaded() -> dict[str, Case]:
    """The cases loaded so far."""
    return {}


@pytest.fixture(scope="session", params=EVERY)
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
