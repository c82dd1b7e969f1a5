"""One rank's part of a served model: mesh, model, family, executor."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.distributed.secret import RANKS_KEY, derived
from garcon_backend.execution.executor import Executor
from garcon_backend.hook_sites import attention
from garcon_backend.models import fit, loading, sharding
from garcon_backend.models.account import account_of
from garcon_backend.models.config import read_config
from garcon_backend.models.families import FAMILIES
from garcon_backend.models.family import bind
from garcon_backend.process import memory
from garcon_backend.process.interrupts import Interrupts
from garcon_backend.process.output import Output
from garcon_backend.save_contexts.backups import LIMIT, Backups
from garcon_jupyter.points import Catalog
from garcon_jupyter.wire.launch_spec import LaunchSpec


@dataclass
class Part:
    """What a rank holds.

    Attributes:
        facts: plain facts of this rank, for status and pictures.
    """

    mesh: Mesh
    executor: Executor
    tokenizer: Any
    catalog: Catalog
    facts: dict[str, Any]
    model_facts: dict[str, Any]


def load_part(spec: LaunchSpec, progress: Callable[[str], None]) -> Part:
    """Join the group and load this rank's part of the model.

    Raises:
        GarconError: the model cannot be served like this, and why.
    """
    _share_cores()
    attention.register()
    mesh = Mesh.form(spec.degrees, spec.device)
    mesh.seal = _seal(spec)
    if spec.loader:
        progress(f"calling {spec.loader}")
        mesh.lent = True
        model, tokenizer = loading.load_with(spec.loader, spec.model, mesh, spec.dtype)
        config = getattr(model, "config", None)
    else:
        directory = Path(spec.model)
        config = read_config(directory)
        fit.check_degrees(config, spec.degrees)
        fit.check_fits(directory, spec.dtype, spec.degrees, mesh.device)
        model = loading.load(directory, mesh, spec.dtype, progress)
        tokenizer = loading.load_tokenizer(directory, progress)
    interrupts = Interrupts(mesh.world == 1)
    if mesh.world > 1:
        interrupts.stop.guard(sharding.own_layers(model, mesh))
    family = FAMILIES.get(getattr(config, "model_type", "")) if not spec.loader else None
    bound = bind(model, family, config)
    executor = Executor(
        mesh,
        model,
        bound,
        sharding.layouts(model, mesh),
        interrupts,
        Output(),
        tokenizer,
    )
    _limit_memory(spec, mesh, executor)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    backups = Backups(spec.contexts / f"rank-{mesh.rank}", LIMIT // local, mesh.rank)
    (finished,) = mesh.everyone.say([backups.finished])
    executor.contexts.back_up(backups, finished)
    return Part(
        mesh,
        executor,
        tokenizer,
        bound.catalog,
        _facts(mesh, model),
        _model_facts(model, config, family),
    )


def _seal(spec: LaunchSpec) -> bytes:
    """The key that the ranks of this server have, and nobody else."""
    if spec.hosts:
        return derived(spec.hosts.secret_file, f"values of {spec.name}")
    return bytes.fromhex(os.environ[RANKS_KEY])


def _limit_memory(spec: LaunchSpec, mesh: Mesh, executor: Executor) -> None:
    """Limit what requests may use and keep, now that the model is in memory."""
    there = memory.available_bytes(mesh.device) // memory.sharers(mesh.device)
    executor.contexts.keeping.set_limit(
        there // 2 if spec.keep is None else spec.keep // memory.sharers("cpu")
    )
    memory.limit(spec.memory)


def _share_cores() -> None:
    """The ranks of one host share its cores."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    torch.set_num_threads(max(1, cores // local))


def _facts(mesh: Mesh, model: torch.nn.Module) -> dict[str, Any]:
    return {
        "rank": mesh.rank,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": str(mesh.device),
        "stage": mesh.stage,
        "tp_rank": mesh.tp_rank,
        "replica": mesh.replica,
        "layers": list(sharding.stage_layers(model, mesh)),
        "parameter_bytes": sum(_bytes(p) for p in model.parameters()),
    }


def _bytes(parameter: Any) -> int:
    local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return local.numel() * local.element_size()


def _model_facts(model: torch.nn.Module, config: Any, family: Any) -> dict[str, Any]:
    account = account_of(model)
    return {
        "architecture": type(model).__name__,
        "model_type": getattr(config, "model_type", None),
        "family": family.name if family else None,
        "dtype": str(next((p.dtype for p in model.parameters()), torch.float32)).removeprefix(
            "torch."
        ),
        "parameters": account.parameters,
        "unused_weights": list(account.unused),
        "notes": account.notes(),
    }
