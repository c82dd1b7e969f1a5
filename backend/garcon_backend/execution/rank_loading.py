"""Joining the group and loading: how a process becomes a rank that runs requests."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.distributed.rank_failures import epoch
from garcon_backend.distributed.secret import RANKS_KEY, derived
from garcon_backend.execution.executor import Executor
from garcon_backend.execution.launch_check import check as launch_check
from garcon_backend.execution.launch_check.check import Checked
from garcon_backend.execution.launch_check.known_check import known_check, remember_check
from garcon_backend.hook_sites import attention
from garcon_backend.models import current_weights, fit, loading, sharding
from garcon_backend.models.account import account_of
from garcon_backend.models.adapters import Adapters
from garcon_backend.models.config import read_config
from garcon_backend.models.current_weights import CurrentWeights
from garcon_backend.models.family import Family
from garcon_backend.models.family_files import check_places, read_family
from garcon_backend.probing.rank import Rank
from garcon_backend.process import memory
from garcon_backend.save_contexts.backups import LIMIT, Backups
from garcon_backend.tokenization.tokenizer import beyond_the_model
from garcon_jupyter.libraries import releases
from garcon_jupyter.model_files.multimodal import text_config
from garcon_jupyter.points import Catalog
from garcon_jupyter.wire.launch_spec import LaunchSpec


@dataclass(frozen=True)
class LoadedRank:
    """A rank with its part of the model in memory, ready to run requests.

    Attributes:
        executor: runs them.
        facts: plain facts of this rank, for status and pictures.
        model_facts: and of the whole model.
    """

    executor: Executor
    facts: dict[str, Any]
    model_facts: dict[str, Any]

    @classmethod
    def of(cls, rank: Rank, checked: Checked) -> LoadedRank:
        """A rank that has all it needs."""
        return cls(Executor(rank), _facts(rank), _model_facts(rank, checked))

    @property
    def mesh(self) -> Mesh:
        """Its place among all ranks."""
        return self.executor.rank.mesh

    @property
    def catalog(self) -> Catalog:
        """What it has of the model's points and parameters."""
        return self.executor.rank.bound.catalog


def load_rank(spec: LaunchSpec, progress: Callable[[str], None]) -> LoadedRank:
    """Join the group, load this rank's part of the model, and hold it against its own implementation.

    Raises:
        GarconError: the model cannot be served like this, and why.
    """
    _share_cores(spec.limits.threads)
    attention.register()
    mesh = Mesh.form(spec.degrees, spec.device)
    mesh.seal = _seal(spec)
    family = read_family(spec.family) if spec.family else None
    model, tokenizer = _load_model(spec, mesh, progress, family)
    adapters = Adapters.load(spec.adapters, model, mesh, progress)
    mapped = not spec.loader
    weights = None if spec.loader else _weights(spec, family)
    rank = Rank.around(
        model, mesh, tokenizer, mapped, adapters=adapters, family=family, weights=weights
    )
    if family and mesh.degrees.pp == 1:
        check_places(rank.bound)
    if mesh.world > 1:
        rank.interrupts.stop.guard(sharding.own_layers(model, mesh))
    checked = _check(spec, rank, progress)
    _limit_memory(spec, rank)
    _bring_back(spec, rank)
    return LoadedRank.of(rank, checked)


def _load_model(
    spec: LaunchSpec, mesh: Mesh, progress: Callable[[str], None], family: Family | None
) -> tuple[torch.nn.Module, Any]:
    """The model, or a module of the user's own, and its tokenizer."""
    if spec.loader:
        progress(f"calling {spec.loader}")
        mesh.shared_with_user = True
        return loading.load_with(spec.loader, spec.model, mesh, spec.dtype)
    for line in releases.untested():
        progress(f"{line}; going on")
    directory = _checkpoint(spec)
    fit.check_degrees(read_config(directory, spec.trust_remote_code), spec.degrees)
    fit.check_fits(directory, spec.dtype, spec.degrees, mesh.device)
    trusted = spec.trust_remote_code
    model = loading.load(directory, mesh, spec.dtype, progress, trusted, family)
    return model, loading.load_tokenizer(spec.model, progress, spec.trust_remote_code)


def _checkpoint(spec: LaunchSpec) -> Path:
    """What is loaded: the model of the launch; after a loss, what its weights had been exchanged for."""
    noted = current_weights.noted(_note(spec)) if epoch() and not spec.loader else None
    return noted or Path(spec.model)


def _weights(spec: LaunchSpec, family: Family | None) -> CurrentWeights:
    """What this rank knows of its weights; one rank of each host puts an exchange down."""
    note = _note(spec) if os.environ.get("LOCAL_RANK", "0") == "0" else None
    return CurrentWeights(_checkpoint(spec), spec.dtype, spec.trust_remote_code, family, note)


def _note(spec: LaunchSpec) -> Path:
    return spec.directory / current_weights.NOTE


def _check(spec: LaunchSpec, rank: Rank, progress: Callable[[str], None]) -> Checked:
    """Hold the model against its own implementation, unless it is asked not to, or it was done before a rank was lost."""
    if spec.loader:
        return launch_check.OWN_MODULE
    model = _checkpoint(spec)
    known = known_check(spec.directory, model) if epoch() and rank.mesh.rank == 0 else None
    if rank.mesh.everyone.any(known is not None):
        return known or launch_check.ELSEWHERE
    checked = launch_check.checked(rank, model, spec.unchecked, progress)
    if rank.mesh.rank == 0:
        remember_check(spec.directory, model, checked)
    return checked


def _bring_back(spec: LaunchSpec, rank: Rank) -> None:
    """Keep backups of save contexts, and begin with what the last finished request left."""
    mesh = rank.mesh
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    backups = Backups(spec.contexts / f"rank-{mesh.rank}", LIMIT // local, mesh.rank)
    (finished,) = mesh.everyone.broadcast_integers([backups.finished])
    rank.contexts.back_up(backups, finished)


def _seal(spec: LaunchSpec) -> bytes:
    """The key that the ranks of this server have, and nobody else."""
    if spec.hosts:
        return derived(spec.hosts.secret_file, f"values of {spec.name}")
    return bytes.fromhex(os.environ[RANKS_KEY])


def _limit_memory(spec: LaunchSpec, rank: Rank) -> None:
    """Limit what requests may use and keep, now that the model is in memory."""
    device, limits = rank.mesh.device, spec.limits
    there = memory.available_bytes(device) // memory.sharers(device)
    rank.contexts.quota.set_limit(
        there // 2 if limits.keep is None else limits.keep // memory.sharers("cpu")
    )
    memory.limit(limits.memory)


def _share_cores(threads: int | None) -> None:
    """The ranks of one host share its cores, unless it was said how many threads each has."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    torch.set_num_threads(threads or max(1, cores // local))


def _facts(rank: Rank) -> dict[str, Any]:
    mesh, model = rank.mesh, rank.model
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
    local: Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return local.numel() * local.element_size()


def _model_facts(rank: Rank, checked: Checked) -> dict[str, Any]:
    model, family = rank.model, rank.bound.family
    account = account_of(model)
    beyond = beyond_the_model(rank.tokenizer, rank.bound.catalog.sizes.get("V", 0))
    return {
        "architecture": type(model).__name__,
        "model_type": getattr(getattr(model, "config", None), "model_type", None),
        "family": family.name if family else None,
        "dtype": str(next((p.dtype for p in model.parameters()), torch.float32)).removeprefix(
            "torch."
        ),
        "logit_cap": getattr(
            text_config(getattr(model, "config", None)), "final_logit_softcapping", None
        ),
        "parameters": account.parameters,
        "unused_weights": list(account.unused),
        "check": checked.facts(),
        "notes": [*checked.notes(), *account.notes(), *beyond],
        "adapters": rank.adapters.told(),
        "versions": {name: _version(name) for name in ("garcon-jupyter", "torch", "transformers")},
    }


def _version(package: str) -> str:
    """The version of a package that is installed; "" where it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
