"""CONTRIBUTING leads to what is there: files, tables, goals of make."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
STARTS = (ROOT, ROOT / "garcon_jupyter", ROOT / "backend" / "garcon_backend", ROOT / "docs")
"""From where a path may be said: `wire/protocol.py` is the notebook's half, `kernel/kernel.py` the server's."""


def quoted() -> list[str]:
    """All that stands between backticks, outside of blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", TEXT, flags=re.M | re.S))


def paths() -> list[str]:
    """Paths among that, but those with a hole for a name."""
    found = [word for word in quoted() if re.fullmatch(r"[\w./-]+(\.\w+|/)", word)]
    found += [word for command in quoted() for word in command.split() if "/" in word]
    return sorted({word for word in found if "NAME" not in word and not word.startswith(".")})


@pytest.mark.parametrize("path", [path for path in paths() if "/" in path])
def test_a_path_is_there(path: str) -> None:
    assert any((start / path).exists() for start in STARTS), path


@pytest.mark.processes
def test_goals_of_make_are_there() -> None:
    goals = set(re.findall(r"(?:^|`)make ([a-z-]+)", TEXT, flags=re.M))
    made = subprocess.run(["make", "-pnq"], cwd=ROOT, capture_output=True, text=True).stdout
    known = set(re.findall(r"^([a-z-]+):", made, flags=re.M))
    assert goals <= known and len(goals) >= 8, goals - known


def test_names_in_capitals_are_in_the_source() -> None:
    named = {word for word in quoted() if re.fullmatch(r"[A-Z]{4,}", word)} - {"NAME"}
    files = [*ROOT.glob("garcon_jupyter/**/*.py"), *ROOT.glob("backend/**/*.py")]
    text = "\n".join(file.read_text("utf-8") for file in [*files, *ROOT.glob("tests/**/*.py")])
    for name in named:
        assert re.search(rf"^{name}\b", text, flags=re.M), name
    assert {"FAMILY", "REQUESTS", "HOOKED", "PICTURES"} <= named


def test_the_changelog_has_the_form_that_it_names() -> None:
    """Unreleased first, then versions with dates; below each, the kinds of Keep a Changelog."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    first, *versions = re.findall(r"^## (.*)$", text, flags=re.M)
    assert first == "Unreleased" and versions
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", version) for version in versions)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert {kind.partition(":")[0] for kind in re.findall(r"^### (.*)$", text, flags=re.M)} <= kinds
