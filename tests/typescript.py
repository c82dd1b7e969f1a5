"""TypeScript's compiler, which `make javascript` brings where there is Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
OPTIONS = TESTS / "widgets" / "javascript" / "tsconfig.json"
COMPILER = OPTIONS.parent / "node_modules" / "typescript" / "bin" / "tsc"

with_node = pytest.mark.skipif(shutil.which("node") is None, reason="There is no Node.")


def complaints(folder: Path | None = None) -> str:
    """What is wrong with the types in a folder, by the options for the widgets; "" where nothing is.

    Args:
        folder: whose files are checked; None for the widgets themselves.
    """
    if not COMPILER.exists():
        pytest.skip("There is no TypeScript: `make javascript` brings it.")
    project = OPTIONS
    if folder is not None:
        project = folder / "tsconfig.json"
        project.write_text(json.dumps({"extends": str(OPTIONS), "include": ["*"]}))
    command = ["node", str(COMPILER), "--project", str(project)]
    done = subprocess.run(command, cwd=project.parent, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    assert bool(done.stdout) == bool(done.returncode)
    return done.stdout
