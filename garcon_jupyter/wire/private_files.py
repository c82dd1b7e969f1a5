"""Files that only their owner can read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_private(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON file (0600), whole or not at all."""
    temporary = file.with_suffix(".writing")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(content, stream, indent=1)
    temporary.replace(file)
