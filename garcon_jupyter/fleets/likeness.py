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
from garcon_jupyter.model_files import weights
from garcon_jupyter.model_files.snapshots import ModelDirectory

_SAYS_NOTHING = {
    "_name_or_path",
    "_commit_hash",
    "_attn_implementation_autoset",
    "initializer_range",
    "task_specific_params",
    "transformers_version",
    "use_cache",
}
"""Entries of a configuration that change no forward pass of given tokens."""

_ENDINGS = ("_token_id", "dropout", "pdrop", "_dropout_prob")
"""How further such entries end: special tokens, and what is done in training only."""

_DTYPE = ("dtype", "torch_dtype")

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


def _differences(
    one: ModelDirectory, other: ModelDirectory, dtype: str | None
) -> list[tuple[str, str]]:
    """What `one` has, and `other` in its place."""
    mine, yours = _told(one.config, dtype), _told(other.config, dtype)
    found = [
        (f"{key}={mine.get(key)!r}", repr(yours.get(key)))
        for key in sorted({*mine, *yours})
        if mine.get(key) != yours.get(key)
    ]
    if not found:  # else shapes say the same again
        shapes, theirs = _shapes(one.path), _shapes(other.path)
        both = sorted(shapes.keys() & theirs.keys())
        found = [
            (f"{name} {list(shapes[name])}", str(list(theirs[name])))
            for name in both
            if shapes[name] != theirs[name]
        ]
    return found


def _told(config: Mapping[str, Any], dtype: str | None) -> dict[str, Any]:
    """What a configuration says of the forward pass, by dotted key."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{inner}": v for inner, v in _told(value, dtype).items()}
        elif key in _DTYPE:
            if not dtype:
                found["dtype"] = value
        elif value is not None and key not in _SAYS_NOTHING and not key.endswith(_ENDINGS):
            found[key] = value
    return found


def _shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a checkpoint's tensors, from the headers of its files."""
    files = weights.weight_files(directory)
    return {each.name: each.shape for file in files for each in weights.stored_tensors(file)}


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
