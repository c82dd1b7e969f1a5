"""The page of performance says what the benchmarks came to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.harness import Row


def test_the_page_and_the_picture_are_made_of_the_results() -> None:
    results = json.loads(report.RESULTS.read_text(encoding="utf-8"))
    assert set(results) <= set(report.GROUPS)
    assert report.page(results) in report.PAGE.read_text(encoding="utf-8")
    assert report.PICTURE.read_text(encoding="utf-8") == report.picture(report.rows_of(results))


def test_a_group_measured_alone_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {"reads": {"machine": "one", "rows": [Row("what was", "1 ms").as_dict()]}}
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(report, "PICTURE", tmp_path / "picture.svg")
    report.RESULTS.write_text(json.dumps(before))
    report.write("growth", [Row("what grows", "2 ms", "≤ 1 ms", met=False, ratio=2.0)], "another")
    page = report.PAGE.read_text()
    assert page.index("what was") < page.index("what grows")
    assert "on one:" in page and "on another:" in page and "**missed**" in page
    assert "what grows" in report.PICTURE.read_text()
