"""Models that the launch dialog offers, so that nobody has to know a name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from garcon_jupyter.model_files.embedded import EMBEDDED, Embedded, cache_dir, is_whole


def offered() -> list[dict[str, Any]]:
    """Embedded models, then those of the Hugging Face hub's local cache.

    Each is ``{"path", "title", "note", "here"}``: what to launch, what to call it, what it costs or is, and whether it
    can be launched without a download.
    """
    return [*map(_embedded, EMBEDDED.values()), *_cached()]


def _embedded(model: Embedded) -> dict[str, Any]:
    here = is_whole(cache_dir().absolute() / "models" / model.name, model)
    megabytes = round(model.download_bytes / 1e6)
    return {
        "path": model.name,
        "title": Path(model.member).name.removesuffix(".gguf").rpartition(".")[0],
        "note": "on this machine" if here else f"comes in a Python package, {megabytes} MB, once",
        "here": here,
    }


def _cached() -> list[dict[str, Any]]:
    from huggingface_hub import constants

    found = []
    for directory in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        configs = sorted(directory.glob("snapshots/*/config.json"))
        if configs and (kind := _kind(configs[-1])):
            name = "/".join(directory.name.split("--")[1:])
            found.append({"path": name, "title": name, "note": f"{kind}, cached", "here": True})
    return found


def _kind(config: Path) -> str:
    """The architecture of a model that generates; "" for others."""
    try:
        names = json.loads(config.read_text())["architectures"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return next((name for name in names or () if "CausalLM" in name or "LMHead" in name), "")
