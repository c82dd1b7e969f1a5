"""In what two checkpoints differ besides the numbers of their weights, by their files alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from garcon_jupyter.model_files import weights

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


def in_configuration(
    mine: Mapping[str, Any], yours: Mapping[str, Any], dtype: str | None = None
) -> list[tuple[str, str]]:
    """In what two configurations differ that changes the forward pass of given tokens.

    Args:
        mine, yours: what ``config.json`` says.
        dtype: that both are loaded in; None for each one's own, which then is compared too.

    Returns:
        What `mine` says, and what `yours` has in its place.
    """
    one, other = _told(mine, dtype), _told(yours, dtype)
    return [
        (f"{key}={one.get(key)!r}", repr(other.get(key)))
        for key in sorted({*one, *other})
        if one.get(key) != other.get(key)
    ]


def in_tensors(mine: Path, yours: Path, names: bool = True) -> list[tuple[str, str]]:
    """In what the tensors of two checkpoints differ, in the same form.

    Args:
        mine, yours: directories.
        names: whether tensors count that only one of both has; else those of other shapes alone.
    """
    one, other = _shapes(mine), _shapes(yours)
    both = sorted(one.keys() & other.keys())
    found = [(f"{n} {list(one[n])}", str(list(other[n]))) for n in both if one[n] != other[n]]
    if names:
        found += [
            (f"{name} {list(one[name])}", "none") for name in sorted(one.keys() - other.keys())
        ]
        found += [
            (f"no {name}", str(list(other[name]))) for name in sorted(other.keys() - one.keys())
        ]
    return found


def _told(config: Mapping[str, Any], dtype: str | None) -> dict[str, Any]:
    """What a configuration says of the forward pass, by dotted key."""
    found: dict[str, Any] = {}
    for key, value in ((str(key), value) for key, value in config.items()):
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
