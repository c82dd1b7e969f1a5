"""The parameters of a loaded model exchanged for those of another checkpoint of its architecture.

The other checkpoint is loaded by the code that loads any, onto the same ranks, each of which reads its own slices: so
converted, fused, tied and packed weights come out as at a launch. It is compared while nothing has changed, and then
module by module put in place of what was there. The modules stay, and with them what knows them: hooks, points, plans.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from garcon_backend.models import account
from garcon_backend.models.config import read_config
from garcon_backend.models.tensor_parallel import cut_of
from garcon_jupyter.errors import ModelsDiffer
from garcon_jupyter.model_files import likeness

SHOWN = 4
"""Differences that an error names."""


def check_files(current: Path, other: Path, dtype: str | None, trust_remote_code: bool) -> None:
    """Refuse a checkpoint of another configuration, or with tensors of other names or shapes, by its files alone.

    Args:
        current: directory of the one that is loaded.
        other: of the one that is to take its place.
        dtype: that both are loaded in; None for each checkpoint's own, which then is compared too.

    Raises:
        ModelsDiffer: with what differs.
    """
    mine, yours = (read_config(each, trust_remote_code).to_dict() for each in (other, current))
    found = likeness.in_configuration(mine, yours, dtype) or likeness.in_tensors(other, current)
    _refuse([f"{said}, which is loaded has {instead}" for said, instead in found], other)


def check(model: nn.Module, fresh: nn.Module, directory: Path) -> None:
    """Refuse a model that was loaded and does not lie in memory as the one that is there.

    Raises:
        ModelsDiffer: with what differs.
    """
    _refuse([*_differences(model, fresh)], directory)


def _refuse(found: list[str], directory: Path) -> None:
    if found:
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise ModelsDiffer(
            f"The weights in {directory} cannot take the place of those that are loaded:"
            f" {'; '.join(found[:SHOWN])}{more}.",
            "Exchange checkpoints that differ in their numbers only; launch others.",
        )


def _differences(model: nn.Module, fresh: nn.Module) -> Iterator[str]:
    here, there = dict(model.named_modules()), dict(fresh.named_modules())
    for path in [*(here.keys() - there.keys()), *(there.keys() - here.keys())]:
        yield f"the module {path} is in one of both"
    if [*_kinds(here)] != [*_kinds(there)]:
        yield "modules are of other classes"
    mine, theirs = _parameters(model), _parameters(fresh)
    for name in [*mine, *(name for name in theirs if name not in mine)]:
        if (said := theirs.get(name, "missing")) != (instead := mine.get(name, "missing")):
            yield f"{name} is {said}, which is loaded {instead}"
    if _tied(model) != _tied(fresh):
        yield "other parameters are tied to each other"
    unused, former = (set(account.account_of(each).unused) for each in (fresh, model))
    for name in sorted(unused ^ former):
        yield f"{name} has no place in the model, and only one of both has it"


def _kinds(modules: dict[str, nn.Module]) -> Iterator[type]:
    """Their classes; the model itself may have been given another one while it was loaded."""
    return (type(module) for path, module in modules.items() if path)


def _parameters(model: nn.Module) -> dict[str, str]:
    """What each parameter is, in words."""
    found = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        dtype = str(parameter.dtype).removeprefix("torch.")
        cut = f", cut {cut_of(parameter)}" if cut_of(parameter) else ""
        found[name] = f"{list(parameter.shape)} {dtype}{cut}"
    return found


def _tied(model: nn.Module) -> set[frozenset[str]]:
    """Names of the parameters that are one, together."""
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(group) for group in names.values() if len(group) > 1}


def put(model: Any, fresh: Any) -> None:
    """Put the numbers of a model that was checked in place of another's. It cannot fail half way."""
    there = dict(fresh.named_modules())
    for path, module in model.named_modules():
        other = there[path]
        module._parameters.update(other._parameters)
        module._buffers.update(other._buffers)
        plain = {name: value for name, value in vars(other).items() if isinstance(value, Tensor)}
        vars(module).update({name: plain[name] for name in plain.keys() & vars(module).keys()})
    if hasattr(fresh, "generation_config"):
        model.generation_config = fresh.generation_config
    account.keep(model, account.account_of(fresh))
