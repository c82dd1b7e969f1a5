"""Checkpoints that bring code of their own: which, and what it means to run it.

``config.json`` names Python files of the directory in its ``auto_map``. Whoever loads such a checkpoint with
``trust_remote_code`` runs them, as any program that they start.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from garcon_jupyter.errors import NotAModel


def brought_by(directory: Path) -> dict[str, Any]:
    """What a checkpoint's ``auto_map`` says: for classes of transformers the code that takes their place."""
    try:
        said = json.loads((directory / "config.json").read_text(encoding="utf-8"))["auto_map"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return said if isinstance(said, dict) else {}


def model_class(directory: Path) -> str | None:
    """The causal language model among it, as ``module.Class``."""
    named = brought_by(directory).get("AutoModelForCausalLM")
    return named if isinstance(named, str) else None


def file_names(directory: Path) -> list[str]:
    """The files with that code, as ``auto_map`` names them."""
    references = [name for named in brought_by(directory).values() for name in _each(named)]
    return sorted({f"{name.rpartition('.')[0]}.py" for name in references})


def _each(named: Any) -> list[str]:
    """References in an entry of ``auto_map``: one, or for tokenizers a slow and a fast one, either of which may be none."""
    return [
        each for each in (named if isinstance(named, list) else [named]) if isinstance(each, str)
    ]


def untrusted(directory: Path) -> NotAModel:
    """The error for a checkpoint that needs code of its own, which nobody has said may run."""
    files = ", ".join(file_names(directory))
    return NotAModel(
        f"{directory} is of an architecture that transformers does not have, and brings code of its own ({files}), "
        "which would run on the server with your rights: it could read and change all that you can.",
        "Read it; if you trust it, launch with trust_remote_code=True (--trust-remote-code).",
    )
