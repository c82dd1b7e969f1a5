"""Which rank holds what.

A model is cut in two ways: *tensor parallelism* (tp) cuts each layer over a group of ranks,
*pipeline parallelism* (pp) gives each group some of the layers, a *stage*. *Data parallelism* (dp)
repeats the whole. Ranks are numbered with pp outermost and tp innermost, ``rank = (stage·dp +
replica)·tp + tp_rank``, so that the ranks which talk most are neighbours. One object knows all of
it and owns all groups.
"""

from __future__ import annotations

import gc
import os

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.rendezvous import rendezvous

from garcon_backend.distributed.collectives import Ranks
from garcon_backend.distributed.rank_failures import epoch
from garcon_backend.libraries.torch_internals import forget_groups
from garcon_jupyter.errors import BadDegrees
from garcon_jupyter.wire.launch_spec import Degrees

GROUP_STORE = "GARCON_GROUP_STORE"
"""Environment variable: the file through which the ranks of one host meet, a new one after each restart.
Without it they meet over the network, as torchrun's environment says."""


class Mesh:
    """The place of this process among all, and the groups it belongs to.

    Attributes:
        degrees: of parallelism.
        rank: of this process among all.
        device: that this process computes on.
        tp: the ranks that share this rank's layers.
        pipeline: the ranks of the same `tp_rank` and replica over all stages, first stage first.
        replicas: the ranks of the same stage and `tp_rank` over all replicas.
        everyone: all ranks.
        shared_with_user: whether code that is not ours knows the groups, and would keep those that were left.
        seal: the key with which ranks seal what they unpickle of each other.
        device_mesh: torch's own view of the same, (pp, dp, tp); None for a process of its own, and for
            a rank that has left.
    """

    def __init__(
        self,
        degrees: Degrees,
        rank: int,
        device: torch.device,
        device_mesh: DeviceMesh | None = None,
        store: dist.Store | None = None,
    ) -> None:
        self.degrees, self.rank, self.device, self.device_mesh = degrees, rank, device, device_mesh
        self._store, self._turn, self.shared_with_user = store, 0, False
        self.seal = b""
        if device_mesh is None:
            self.tp = self.pipeline = self.replicas = self.everyone = Ranks(None, device)
        else:
            self.tp, self.pipeline, self.replicas, self.everyone = (
                Ranks(group, device) for group in _groups_of(device_mesh)
            )

    @classmethod
    def solo(cls, device: torch.device | str = "cpu") -> Mesh:
        """One process, without torch.distributed."""
        return cls(Degrees(), 0, torch.device(device))

    @classmethod
    def form(cls, degrees: Degrees, device: torch.device | str | None = None) -> Mesh:
        """Join the group that torchrun's environment describes (RANK, WORLD_SIZE, MASTER_ADDR, …).

        Args:
            degrees: whose product is the number of processes.
            device: to compute on; "cuda" becomes the GPU of this process's LOCAL_RANK.
                Communication is gloo's on CPU, NCCL's on CUDA.

        Raises:
            BadDegrees: another number of processes was started.
        """
        kind = torch.device(device or "cpu")
        if kind.type == "cuda":
            local = kind.index if kind.index is not None else int(os.environ.get("LOCAL_RANK", 0))
            kind = torch.device("cuda", local)
            torch.cuda.set_device(kind)
        if degrees.world == 1:
            return cls.solo(kind)
        world = int(os.environ.get("WORLD_SIZE", 1))
        if world != degrees.world:
            raise BadDegrees(
                f"{degrees} needs {degrees.world} processes, but {world} were started.",
                "Start as many processes as the product of the degrees.",
            )
        store = None
        if not dist.is_initialized():
            store = _meeting_place(world)
            _join(_backend(kind), store, int(os.environ["RANK"]), world)
        return cls(degrees, dist.get_rank(), kind, _device_mesh(degrees, kind), store)

    @property
    def may_rejoin(self) -> bool:
        """Whether a rank that leaves in the middle of a pass is noticed at once, and all can join anew.

        So it is with gloo, whose connections end. NCCL's ranks would go on waiting in their kernels.
        """
        return self._store is not None and not self.shared_with_user and self.device.type == "cpu"

    def leave(self) -> None:
        """Leave all groups: whoever waits for this rank in one of them gets an error.

        A collective on a group that was left would be wrong, so they are forgotten here as well.
        """
        if self.device_mesh is None:
            return
        forget_groups(self.device_mesh)
        self.device_mesh = None
        for ranks in self._groups:
            ranks.group = None
        dist.destroy_process_group()
        gc.collect()  # the connections end with the last one who knows of a group

    def rejoin(self) -> None:
        """Join anew, after all ranks have left. Collective."""
        assert self._store is not None and self.device_mesh is None
        self._turn += 1
        again = dist.PrefixStore(f"turn-{self._turn}", self._store)
        _join(_backend(self.device), again, self.rank, self.world)
        self.device_mesh = _device_mesh(self.degrees, self.device)
        for ranks, group in zip(self._groups, _groups_of(self.device_mesh), strict=True):
            ranks.group = group

    @property
    def _groups(self) -> tuple[Ranks, ...]:
        return self.tp, self.pipeline, self.replicas, self.everyone

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.degrees.world

    @property
    def tp_rank(self) -> int:
        """Which shard of its layers this rank holds."""
        return self.rank % self.degrees.tp

    @property
    def replica(self) -> int:
        """Which replica of the model this rank belongs to."""
        return self.rank // self.degrees.tp % self.degrees.dp

    @property
    def stage(self) -> int:
        """Which of the pipeline's stages this rank belongs to."""
        return self.rank // (self.degrees.tp * self.degrees.dp)

    @property
    def first_stage(self) -> bool:
        """Whether this rank holds the embedding."""
        return self.stage == 0

    @property
    def last_stage(self) -> bool:
        """Whether this rank holds the final norm and the unembedding."""
        return self.stage == self.degrees.pp - 1

    @property
    def leads(self) -> bool:
        """Whether this rank leads its tensor-parallel group: whole values are put together here."""
        return self.tp_rank == 0

    @property
    def runs_probes(self) -> bool:
        """Whether this rank leads its stage over all replicas: user code of the stage runs here."""
        return self.leads and self.replica == 0

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.world}: {self.degrees}, on {self.device}>"


def _backend(device: torch.device) -> str:
    return "nccl" if device.type == "cuda" else "gloo"


def _meeting_place(world: int) -> dist.Store:
    """The store through which ranks find each other; it serves every time that they join."""
    file = os.environ.get(GROUP_STORE)
    if file is not None:
        return dist.FileStore(f"{file}-{epoch()}", world)
    meeting: tuple[dist.Store, int, int] = next(rendezvous("env://"))
    return meeting[0]


def _join(backend: str, store: dist.Store, rank: int, world: int) -> None:
    dist.init_process_group(backend, store=store, rank=rank, world_size=world)


def _device_mesh(degrees: Degrees, device: torch.device) -> DeviceMesh:
    shape, names = (degrees.pp, degrees.dp, degrees.tp), ("pp", "dp", "tp")
    return init_device_mesh(device.type, shape, mesh_dim_names=names)


def _groups_of(device_mesh: DeviceMesh) -> tuple[dist.ProcessGroup, ...]:
    """The groups of a rank, as :class:`Mesh` names them: tp, pipeline, replicas, everyone."""
    world = dist.group.WORLD
    assert world is not None
    return *(device_mesh.get_group(name) for name in ("tp", "pp", "dp")), world
