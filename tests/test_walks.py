"""How far a request walks through the rooms: few, and not to and fro."""

from __future__ import annotations

import pytest

import garcon_jupyter as garcon
from benchmarks import walks
from tests.conftest import quiet

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def walked(llama_path: object) -> dict[str, list[str]]:
    """The rooms that a forward with one probe goes through, on a server of its own, whose kernel is wrapped."""
    server = garcon.launch(str(llama_path), "walked", progress=quiet)
    model = garcon.connect(server.name)
    found = walks.of_a_forward(model)
    model.shutdown(force=True)
    return found


@pytest.mark.parametrize(("side", "most"), [("client", 12), ("rank 0", 100)])
def test_a_forward_with_one_probe(walked: dict[str, list[str]], side: str, most: int) -> None:
    assert len(walks.route(walked[side])) - 1 <= most
    assert len(set(walked[side])) > 2


def test_a_loop_is_walked_once_and_a_way_back_is_a_move() -> None:
    assert walks.route(list("aabbab")) == ["a", "b"]
    assert walks.route(list("abcbcbcd")) == ["a", "b", "c", "d"]
    assert walks.route(list("abac")) == ["a", "b", "a", "c"]
