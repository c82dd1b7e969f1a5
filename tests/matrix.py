"""Tests with other releases of torch and transformers: ``python -m tests.matrix`` (``make matrix``).

For each pair of the table in :mod:`garcon_jupyter.libraries.releases` it makes an environment, runs the tests that touch
what these libraries promise nobody, and at the end prints what passed. There is one environment for each release of
torch, in ``build/matrix``, which pairs with other releases of transformers take over: torch comes with the libraries of
its devices, which are gigabytes, and is the same in all of them. What pip is told by its own settings and environment
holds here too, such as an index of wheels for CPUs (``PIP_EXTRA_INDEX_URL``), which are a tenth of that.

A release that is to be admitted gets its rows in the table first; where they pass, the bounds in ``pyproject.toml`` follow,
and where they do not, what fails is mended or the rows go again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from packaging.requirements import Requirement

from garcon_jupyter.libraries.releases import LIBRARIES, MATRIX, Pair

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "matrix"

TESTS = (
    "tests/libraries",
    "tests/backend/libraries",
    "tests/backend/models",
    "tests/backend/execution",
    "tests/backend/probing",
    "tests/backend/save_contexts/test_copies.py",
    "tests/backend/test_by_hand.py",
    "tests/backend/test_identities.py",
    "tests/backend/test_modules.py",
    "tests/backend/test_wrong_answers.py",
    "tests/model_files",
)
"""In one process, whatever touches modules, their loading, caches, masks, files and generation."""

ON_RANKS = (
    "tests/backend/test_parity.py",
    "tests/backend/distributed",
    "tests/behaviour/test_sharded_servers.py",
    "tests/behaviour/test_losses.py",
)
"""Placements, groups and the agent that starts ranks; left out by ``--quick``."""

RUNNING = ("pytest", "pytest-timeout", "hypothesis")
"""What tests need beside what Garçon needs."""


@dataclass(frozen=True)
class Outcome:
    """What came of a pair.

    Attributes:
        passed, failed: how many tests; errors count as failed.
        seconds: that the tests took.
        trouble: why there were none.
    """

    torch: str
    transformers: str
    passed: int = 0
    failed: int = 0
    seconds: float = 0.0
    trouble: str = ""

    @property
    def well(self) -> bool:
        """Whether the pair may stay in the table."""
        return bool(self.passed) and not self.failed and not self.trouble


def requirements(pair: Pair) -> list[str]:
    """What pip is asked for: the pair, the rest of what Garçon needs, and what runs tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    others = [line for line in project["dependencies"] if Requirement(line).name not in LIBRARIES]
    running = [line for line in extras["test"] if Requirement(line).name in RUNNING]
    exact = [f"{library}=={getattr(pair, library)}" for library in LIBRARIES]
    return [*exact, *others, *extras["data"], *running]


def python_of(pair: Pair) -> Path:
    """The interpreter of the environment that a pair has."""
    return FOLDER / f"torch-{pair.torch}" / "bin" / "python"


def make(pair: Pair) -> None:
    """Make the environment, or exchange transformers in it.

    Raises:
        subprocess.CalledProcessError: pip cannot.
    """
    python = python_of(pair)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
    words = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*words, *requirements(pair)], check=True)


def run(pair: Pair, quick: bool, tests: Sequence[str]) -> Outcome:
    """The tests of a pair."""
    told = FOLDER / f"torch-{pair.torch}-transformers-{pair.transformers}.xml"
    told.unlink(missing_ok=True)
    paths = f"{ROOT}{os.pathsep}{ROOT / 'backend'}"
    words = [python_of(pair), "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={told}"]
    words += ["--quick"] if quick else []
    selected = tests or (TESTS if quick else (*TESTS, *ON_RANKS))
    began = time.monotonic()
    subprocess.run(
        [*words, *selected], cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, check=False
    )
    if not told.exists():
        return Outcome(pair.torch, pair.transformers, trouble="no test ran")
    return outcome(pair, told, time.monotonic() - began)


def outcome(pair: Pair, told: Path, seconds: float) -> Outcome:
    """What pytest wrote of a run."""
    (suite,) = ElementTree.parse(told).getroot().iter("testsuite")
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    passed = count["tests"] - failed - count["skipped"]
    return Outcome(pair.torch, pair.transformers, passed, failed, seconds)


def table(outcomes: Sequence[Outcome]) -> str:
    """What came of all pairs, as people read it."""
    lines = [f"{'torch':<10}{'transformers':<14}{'passed':>7}{'failed':>8}{'minutes':>9}"]
    for each in outcomes:
        counts = f"{each.passed:>7}{each.failed:>8}{each.seconds / 60:>9.1f}"
        lines.append(f"{each.torch:<10}{each.transformers:<14}{each.trouble or counts}")
    return "\n".join(lines)


def chosen(only: Sequence[str]) -> list[Pair]:
    """The pairs of the table, or those named as "2.15.0/5.24.0"; those of one torch after each other."""
    pairs = [pair for pair in MATRIX if not only or f"{pair.torch}/{pair.transformers}" in only]
    return sorted(pairs, key=lambda pair: [each.torch for each in MATRIX].index(pair.torch))


def main(words: Sequence[str] | None = None) -> int:
    """The command: 0 where all pairs passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="TORCH/TRANSFORMERS")
    parser.add_argument("--quick", action="store_true", help="only what runs in one process")
    parser.add_argument("--remove", action="store_true", help="each environment after its pairs")
    parser.add_argument("--tests", nargs="+", default=[], help="other tests than the usual")
    asked = parser.parse_args(words)
    FOLDER.mkdir(parents=True, exist_ok=True)
    pairs, outcomes = chosen(asked.only), []
    for number, pair in enumerate(pairs):
        print(f"torch {pair.torch}, transformers {pair.transformers}: {pair.why}", flush=True)
        try:
            make(pair)
            outcomes.append(run(pair, asked.quick, asked.tests))
        except subprocess.CalledProcessError as error:
            trouble = f"pip: exit code {error.returncode}"
            outcomes.append(Outcome(pair.torch, pair.transformers, trouble=trouble))
        if asked.remove and pair.torch not in {later.torch for later in pairs[number + 1 :]}:
            shutil.rmtree(python_of(pair).parents[1], ignore_errors=True)
        (FOLDER / "outcomes.json").write_text(json.dumps([asdict(each) for each in outcomes]))
        print(table(outcomes), flush=True)
    return 0 if outcomes and all(each.well for each in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
