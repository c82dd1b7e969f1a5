"""What each rank does in the tests of the check at launch: check a cut model that is right, and such that are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.execution.launch_check.check import check
from garcon_backend.hook_sites import attention
from garcon_backend.models.stages import StandIn
from garcon_jupyter.errors import NotTheReference
from garcon_jupyter.wire.launch_spec import Degrees
from tests.backend.bare_rank import BareRank

Fault = Callable[[Any], None]
"""Spoils a loaded model."""


def check_all(llama: str, mixtral: str) -> dict[str, str]:
    """What the check says of models cut by tensor parallelism, whole and spoilt on one rank."""
    torch.set_num_threads(1)
    mesh = Mesh.form(Degrees(tp=2))
    told = {"llama": _said(llama, mesh), "mixtral": _said(mixtral, mesh)}
    told["neurons"] = _said(llama, mesh, lambda m: _lose(m, "mlp.down_proj", mesh))
    told["heads"] = _said(llama, mesh, lambda m: _lose(m, "self_attn.o_proj", mesh))
    told["rows"] = _said(llama, mesh, lambda m: _halve(m.model.embed_tokens, mesh))
    told["scale"] = _said(llama, mesh, _scale)
    mesh.leave()
    return told


def check_stages(llama: str) -> dict[str, str]:
    """What the check says of a model cut into stages, right and wrong."""
    torch.set_num_threads(1)
    mesh = Mesh.form(Degrees(pp=2))
    told = {"llama": _said(llama, mesh), "scale": _said(llama, mesh, _scale)}
    mesh.leave()
    return told


def _said(path: str, mesh: Mesh, fault: Fault = lambda model: None) -> str:
    ours = BareRank(Path(path), None, mesh)
    with torch.no_grad():
        fault(ours.model)
    try:
        return check(ours.tools.passes, Path(path)).said
    except NotTheReference as error:
        return f"NotTheReference: {error.problem}"
    finally:
        attention.register()


def _lose(model: Any, path: str, mesh: Mesh) -> None:
    """Half of what a rank has of a module is lost, in every layer."""
    for layer in model.model.layers:
        _halve(layer.get_submodule(path), mesh)


def _halve(module: Any, mesh: Mesh) -> None:
    if mesh.tp_rank == 1:
        weight = module.weight
        weight[:, : weight.shape[1] // 2] = 0


def _scale(model: Any) -> None:
    """Attention of one layer has another scale, wherever the house computes it."""
    layer = model.model.layers[2]
    if isinstance(layer, StandIn):
        return
    real, mine = attention.attention, layer.self_attn

    def scaled(module: Any, *args: Any, scaling: float, **more: Any) -> Any:
        return real(module, *args, scaling=scaling * (4.0 if module is mine else 1.0), **more)

    attention.AttentionInterface.register(attention.NAME, scaled)
