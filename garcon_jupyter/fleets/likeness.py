"""Whether checkpoints differ in their weights only: configurations, shapes and tokenizers, before anything is launched.

What is compared between members is the difference that training made. Where a configuration says another thing (the base
of the rotary angles, an activation function), a difference of their activations would be that, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from garcon_jupyter.errors import ModelsDiffer
from garcon_jupyter.model_files import likeness
from garcon_jupyter.model_files.snapshots import ModelDirectory

SHOWN = 8
"""Differences that an error names."""


def check(members: Mapping[str, ModelDirectory], dtype: str | None = None) -> None:
    """Refuse models that differ in more than the numbers of their weights.

    Args:
        members: the checkpoints by label.
        dtype: that all are loaded in; None for each checkpoint's own, which then is compared too.

    Raises:
        ModelsDiffer: with a list of what differs, each from the first member.
    """
    (first, one), *others = members.items()
    found = [
        f"{label} has {said}, {first} {other}"
        for label, another in others
        for said, other in _differences(another, one, dtype)
    ]
    if found:
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise ModelsDiffer(
            f"The models are not of one architecture: {'; '.join(found[:SHOWN])}{more}.",
            "A fleet is of checkpoints that differ in their weights only; launch others one by one.",
        )


def check_exchangeable(members: Mapping[str, ModelDirectory], one_tokenizer: bool) -> None:
    """Refuse models whose weights cannot take each other's place in one server.

    Args:
        members: the checkpoints by label, which :func:`check` has passed.
        one_tokenizer: whether they encode text alike: the server has one.

    Raises:
        ModelsDiffer: tokenizers differ, or tensors that one has and another has not.
    """
    (first, one), *others = members.items()
    found = [] if one_tokenizer else ["their tokenizers differ"]
    for label, another in others:
        for said, other in likeness.in_tensors(another.path, one.path):
            found.append(f"{label} has {said}, {first} {other}")
    if found:
        raise ModelsDiffer(
            f"Their weights cannot be exchanged in one server: {'; '.join(found[:SHOWN])}.",
            "Leave out alive=1, so that each has a server.",
        )


def _differences(
    one: ModelDirectory, other: ModelDirectory, dtype: str | None
) -> list[tuple[str, str]]:
    """What `one` has, and `other` in its place."""
    found = likeness.in_configuration(one.config, other.config, dtype)
    # Else shapes say the same again. Names may differ: libraries have stored one model in several ways.
    return found or likeness.in_tensors(one.path, other.path, names=False)


# -- tokenizers ----------------------------------------------------------------------------------

_WHOLE = "tokenizer.json"
_PARTS = ("vocab.json", "merges.txt", "tokenizer.model", "vocab.txt", "spiece.model")
_SETTINGS = "tokenizer_config.json"
_ABOUT_TEXT = ("add_bos_token", "add_eos_token", "add_prefix_space")
"""Settings that change how a text is encoded."""


def one_tokenizer(directories: list[Path]) -> bool:
    """Whether all checkpoints encode text alike, as far as their files say."""
    return len({_tokenizer(directory) for directory in directories}) <= 1


def _tokenizer(directory: Path) -> str:
    """A digest of what a tokenizer does with text; how its files are laid out does not count."""
    settings = _json(directory / _SETTINGS)
    told: list[Any] = [[settings.get(key) for key in _ABOUT_TEXT]]
    if whole := _json(directory / _WHOLE):
        told.append({k: v for k, v in whole.items() if k not in ("padding", "truncation")})
    else:
        files = [directory / name for name in _PARTS if (directory / name).is_file()]
        told += [[file.name, hashlib.sha256(file.read_bytes()).hexdigest()] for file in files]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _json(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
