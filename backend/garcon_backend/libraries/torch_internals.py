"""What Garçon takes of torch beyond what it documents: the one file to look at for a new release.

Importing this file looks for all of it (:data:`INTERNALS`), as that of transformers does for its own. The agent's
methods are replaced in :mod:`garcon_backend.supervision.agent` and :mod:`~garcon_backend.supervision.forked`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from garcon_jupyter.libraries.internals import Internal, check

_AGENT = "torch.distributed.elastic.agent.server.local_elastic_agent"
_STARTS = "torch.distributed.elastic.multiprocessing"

INTERNALS = (
    Internal(
        "torch.distributed.tensor.placement_types",
        "_StridedShard",
        "cuts a parameter that is several in one",
    ),
    Internal("torch._C", "_storage_Use_Count", "sees whether a probe kept a tensor"),
    Internal("torch", "UntypedStorage._cdata", "tells whether two tensors share memory"),
    Internal("torch", "Tensor._version", "sees whether a saved tensor was changed"),
    Internal(
        "torch.nn", "Module._wrapped_call_impl", "finds the module in which an error happened"
    ),
    Internal(
        _AGENT,
        "LocalElasticAgent._monitor_workers",
        "looks after its ranks",
        ("worker_group",),
    ),
    Internal(
        _AGENT,
        "LocalElasticAgent._stop_workers",
        "removes what ranks leave behind",
        ("worker_group",),
    ),
    Internal(f"{_STARTS}.api", "get_subprocess_handler", "forks ranks instead of starting them"),
    Internal(
        f"{_STARTS}.subprocess_handler",
        "SubprocessHandler._popen",
        "forks ranks instead of starting them",
        ("args", "env"),
    ),
)

check("torch", INTERNALS)

from torch.distributed.tensor.placement_types import _StridedShard as StridedShard  # noqa: E402

CALLED = nn.Module._wrapped_call_impl.__name__
"""The function in whose frame a module that is called is `self`."""


def storage_of(tensor: Tensor) -> int:
    """A number that tensors have in common that share their memory, while one of them lives."""
    return int(tensor.untyped_storage()._cdata)


def uses_of_storage(tensor: Tensor) -> int:
    """How many tensors refer to the memory of one; 0 of one whose memory is of another kind, as sparse ones are."""
    if tensor.layout is not torch.strided:
        return 0
    return int(torch._C._storage_Use_Count(tensor.untyped_storage()._cdata))


def version_of(tensor: Tensor) -> int:
    """How often a tensor was changed in place."""
    return tensor._version


def forget_groups(device_mesh: Any) -> None:
    """Let a mesh forget its groups. torch remembers meshes by which tensors were cut, and a mesh its groups."""
    getattr(device_mesh, "_pg_registry", {}).clear()


__all__ = [
    "CALLED",
    "INTERNALS",
    "StridedShard",
    "forget_groups",
    "storage_of",
    "uses_of_storage",
    "version_of",
]
