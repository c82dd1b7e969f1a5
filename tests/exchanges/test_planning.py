"""Passes, piles and bytes are known before an exchange starts; on paper they come to what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.exchanges import on_paper, reach
from garcon_jupyter.exchanges.planning import bytes_said, planned

PAGE = Path(__file__).parents[2] / "docs" / "activations.md"


@pytest.mark.parametrize(
    ("said", "count"),
    [("350 MB", 350_000_000), ("1GB", 10**9), ("2 GiB", 2 << 30), ("64k", 64_000), (12, 12)],
)
def test_amounts_of_memory(said: str, count: int) -> None:
    assert bytes_said(said) == count


@pytest.mark.parametrize("said", ["", "much", "-1 GB", "0"])
def test_what_is_no_amount_of_memory(said: str) -> None:
    with pytest.raises(garcon.BadRequest, match="350 MB"):
        bytes_said(said)


def test_memory_is_for_all_processes_together() -> None:
    small = planned(1_000_000, 1164, 220_000, bytes_said("350 MB"), 2)
    large = planned(1_000_000, 1164, 220_000, bytes_said("2 GB"), 2)
    assert small.workers == large.workers == 2 and small.partitions == large.partitions == 1
    for plan, memory in ((small, 350e6), (large, 2e9)):
        own = max(plan.chunk_rows, plan.pile_rows) * (plan.row_bytes + 8)
        assert plan.workers * (own + 44e6) + 44e6 < memory
    assert planned(1_000_000, 1164, 220_000, bytes_said("200 MB"), 8).workers < 8
    with pytest.raises(garcon.DoesNotFit, match=r"at least 103\.\d MiB, and has 76\.3 MiB"):
        planned(1_000_000, 1164, 220_000, 80_000_000)


def test_bytes_are_one_read_and_one_write_for_each_pass_and_one_more() -> None:
    once = on_paper(100e9)
    assert once.partitions == 1 and once.read == once.written
    assert once.read == pytest.approx(2 * 100e9, rel=0.02)
    assert on_paper(100e12).read == pytest.approx(3 * 100e12, rel=0.02)
    assert once.room == pytest.approx(2 * 100e9, rel=0.02)


def test_the_articles_passes_count_the_last_step_that_is_none() -> None:
    told = {1: 100e9, 2: 10e12, 3: 1e15, 4: 100e15}  # as the article has them
    assert {passes + 1: reach(100e9, 100, passes) for passes in range(4)} == told


def test_the_page_has_what_the_simulation_says() -> None:
    rows = re.findall(
        r"^\| (\d+) (GB|TB|PB) \| (\d+) GB \| ([\d,]+) \| (\d) × ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) × \|",
        PAGE.read_text(encoding="utf-8"),
        re.M,
    )
    assert len(rows) >= 4
    for size, unit, memory, workers, partitions, branches, piles, between, factor in rows:
        nbytes = int(size) * {"GB": 1e9, "TB": 1e12, "PB": 1e15}[unit]
        count = int(workers.replace(",", ""))
        plan = on_paper(nbytes, memory=int(memory) * 1e9, workers=count)
        said = [int(each.replace(",", "")) for each in (partitions, branches, piles, between)]
        assert said == [plan.partitions, plan.branches, plan.piles, plan.tasks], (size, unit)
        assert float(factor) == pytest.approx(plan.read / nbytes, abs=0.006)
