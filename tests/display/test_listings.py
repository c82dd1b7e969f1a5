"""Lists as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from garcon_jupyter.display import listings
from garcon_jupyter.points import Catalog
from garcon_jupyter.servers.server import Server


def test_columns_are_aligned() -> None:
    assert listings.columns([("a", "bb", "c"), ("long", "", "d")]) == "a     bb  c\nlong      d"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([3], "3"), ([0, 1, 2, 5, 7, 8], "0-2, 5, 7-8"), ([2, 0, 1], "0-2")],
)
def test_spans(numbers: list[int], text: str) -> None:
    assert listings.spans(numbers) == text


def test_durations() -> None:
    assert [listings.duration(s) for s in (4, 119, 3600, 9000)] == [
        "4 s",
        "119 s",
        "60 min",
        "2.5 h",
    ]


def test_a_server_that_starts_anew_says_so() -> None:
    facts = {
        "model": {"architecture": "LlamaForCausalLM", "dtype": "float32"},
        "degrees": {"tp": 2, "pp": 1},
        "pid": 4711,
        "path": "/models/llama",
    }
    running = Server("one", Path("one.json"), facts)
    lost = Server(
        "two", Path("two.json"), {**facts, "restarting": "rank 1 was lost (signal SIGKILL)"}
    )
    _, first, second = listings.servers([running, lost]).splitlines()
    assert "4711" in first and "starts anew" not in first
    assert "starts anew" in second and "4711" not in second


def test_shapes_have_numbers_where_the_model_has_them() -> None:
    catalog = Catalog(
        {"D": 8, "H": 2, "d": 3},
        2,
        layers={"layers.{i}.attn.z": (1,)},
        refused={"logits": "of a reason"},
        parameters=("layers.0.attn.q_proj", "own.weight"),
    )
    rows = {row.split()[0]: row for row in listings.points(catalog).splitlines() if row}
    assert rows["layers.{i}.attn.z"].split()[1:6] == ["b,", "p,", "2,", "3", "1"]
    assert rows["logits"].endswith("of a reason")
    rows = {row.split()[0]: row for row in listings.parameters(catalog).splitlines()}
    assert rows["layers.{i}.attn.q_proj"].split()[1:4] == ["6,", "8", "0"]
    assert rows["own.weight"] == "own.weight"
