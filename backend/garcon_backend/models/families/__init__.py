"""The architectures whose points are mapped, one file each; nothing else knows their names."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from garcon_backend.models.family import Family


def _all() -> dict[str, Family]:
    families: dict[str, Family] = {}
    for module in pkgutil.iter_modules(__path__):
        family = getattr(importlib.import_module(f"{__name__}.{module.name}"), "FAMILY", None)
        if isinstance(family, Family):
            families |= dict.fromkeys(family.model_types, family)
    return families


FAMILIES: dict[str, Family] = _all()
"""model_type of a configuration → its family."""


def family_of(config: Any) -> Family | None:
    """The family that maps the architecture of a configuration; None where none does."""
    return FAMILIES.get(getattr(config, "model_type", ""))
