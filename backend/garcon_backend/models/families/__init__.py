"""The architectures whose points are mapped, one file each; nothing else knows their names."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import fields, replace
from typing import Any

from garcon_backend.hook_sites.other_sites import ByKind
from garcon_backend.models.family import Family
from garcon_jupyter.model_files.multimodal import Wrapper, text_config, wrapper_of


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
    """The family of a model's configuration: of a multimodal one, that of its text part, where the wrapper has it."""
    family = FAMILIES.get(getattr(text_config(config), "model_type", ""))
    wrapper = wrapper_of(config)
    return family if family is None or wrapper is None else _inside(family, wrapper)


def _inside(family: Family, wrapper: Wrapper) -> Family:
    """A family whose modules lie inside a wrapper; all else of it stays as it is."""
    return replace(
        family,
        layers=wrapper.path(family.layers),
        points={template: _moved(site, wrapper) for template, site in family.points.items()},
        parameters={name: _moved(weight, wrapper) for name, weight in family.parameters.items()},
    )


def _moved(placed: Any, wrapper: Wrapper) -> Any:
    """A site, or a weight, with each path in it where the wrapper has it."""
    if isinstance(placed, ByKind):
        sites = ((wrapper.path(path), _moved(site, wrapper)) for path, site in placed.sites)
        return ByKind(tuple(sites))
    said = {field.name: getattr(placed, field.name) for field in fields(placed)}
    paths: dict[str, Any] = {
        name: wrapper.path(text) for name, text in said.items() if isinstance(text, str)
    }
    if "unless" in said:
        paths["unless"] = tuple(map(wrapper.path, said["unless"]))
    return replace(placed, **paths)
