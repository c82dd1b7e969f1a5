"""Members that do not fit together are refused with the numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from garcon_jupyter.errors import DoesNotFit
from garcon_jupyter.fleets import budget
from garcon_jupyter.servers.settings import Settings
from tests.oracle import Plain

MIB = 1 << 20


@pytest.fixture(scope="module")
def weights(llama_path: Path) -> int:
    """Bytes of the small Llama's parameters, by torch."""
    model = Plain(llama_path).model
    return sum(p.numel() * p.element_size() for p in model.parameters())


def test_what_is_left_is_what_is_free_less_all_members(llama_path: Path, weights: int) -> None:
    one = Settings(str(llama_path), device="cpu")
    left = budget.check({"a": one, "b": one}, free=1024 * MIB)
    expected = 1024 * MIB - 2 * (weights * budget.MARGIN + budget.PROCESSES)
    assert abs(left - expected) <= 4


def test_half_precision_takes_half_and_replicas_twice(llama_path: Path, weights: int) -> None:
    def taken(**options: object) -> int:
        settings = Settings(str(llama_path), device="cpu", **options)
        return 10_000 * MIB - budget.check({"a": settings}, free=10_000 * MIB)

    assert abs(taken(dtype="bfloat16") - budget.PROCESSES - weights * budget.MARGIN / 2) <= 4
    assert abs(taken(dp=2) - 2 * budget.PROCESSES - 2 * weights * budget.MARGIN) <= 4
    assert abs(taken(tp=2) - 2 * budget.PROCESSES - weights * budget.MARGIN) <= 4


def test_one_fits_and_two_do_not(llama_path: Path) -> None:
    one = Settings(str(llama_path), device="cpu")
    assert budget.check({"a": one}, free=400 * MIB) > 0
    with pytest.raises(
        DoesNotFit, match=r"2 members need 60\d\.\d MiB together.*400\.0 MiB are free"
    ):
        budget.check({"a": one, "b": one}, free=400 * MIB)


def test_members_share_what_is_left() -> None:
    each = budget.share(1000 * MIB, 4)
    assert 4 * each["memory"] <= 1000 * MIB
    assert 4 * each["keep"] == 500 * MIB


def test_members_that_run_need_nothing() -> None:
    assert budget.check({}) == 0
