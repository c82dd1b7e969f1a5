"""What the check at launch came to, known to ranks that are started anew: the same code has read the same files.

Only for the life of one server, in its own directory: each launch checks by itself.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
import transformers

from garcon_backend.execution.launch_check.check import Checked

FILE = "check.json"
"""Its name in the directory of a server."""


def known_check(directory: Path, model: Path) -> Checked | None:
    """What was found before of these files; None where nothing was, or where they have changed.

    Args:
        directory: of the server.
        model: directory of the checkpoint, or its only file.
    """
    try:
        found = json.loads((directory / FILE).read_text())
        return Checked(**found["checked"]) if found["of"] == _identity(model) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember_check(directory: Path, model: Path, checked: Checked) -> None:
    """Note what was found, for ranks that come after this one."""
    (directory / FILE).write_text(json.dumps({"of": _identity(model), "checked": vars(checked)}))


def _identity(model: Path) -> dict[str, Any]:
    """What decides about the outcome: libraries, and of each file its size and when it was written."""
    files = sorted(model.iterdir()) if model.is_dir() else [model]
    stamps = {file.name: _stamp(file.stat()) for file in files}
    return {"torch": torch.__version__, "transformers": transformers.__version__, "files": stamps}


def _stamp(found: os.stat_result) -> list[int]:
    return [found.st_size, found.st_mtime_ns]
