"""One node of a server's job: ``srun python -m garcon_jupyter.servers.slurm_node DIRECTORY``.

It finds its place among the nodes in Slurm's own variables, and becomes a supervisor.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.servers.hosts import Place, address_towards, ranks_per_node
from garcon_jupyter.wire.shared_files import shared_memory_root


def place(where: Path, spec: Mapping[str, Any], environment: Mapping[str, str]) -> Place:
    """A node's place among those of its job.

    The first node is the one on which the batch script, and so srun, runs; Slurm tells the others its
    address.
    """
    nodes, mine = int(environment["SLURM_NNODES"]), int(environment["SLURM_NODEID"])
    first, port = environment["SLURM_LAUNCH_NODE_IPADDR"], int(environment["GARCON_PORT"])
    return Place(
        nodes,
        ranks_per_node(nodes, spec["nproc_per_node"], spec["degrees"]),
        f"{first}:{port}",
        mine == 0,
        mine,
        first if mine == 0 else address_towards(first, port),
        str(where / "secret"),
    )


def main(arguments: Sequence[str]) -> None:
    """Become the supervisor of this node."""
    if "SLURM_NODEID" not in os.environ:
        raise BadRequest("This is no node of a job of Slurm.", "garcon launch submits the job.")
    where = Path(arguments[0])
    spec = json.loads((where / "job.json").read_text())
    here = place(where, spec, os.environ)
    job = os.environ["SLURM_JOB_ID"]
    own = where if here.first else where / f"node{here.node_rank}"
    shared = shared_memory_root() / f"garcon-{os.getuid()}-job{job}-{here.node_rank}"
    for path in (own, shared):
        path.mkdir(mode=0o700, exist_ok=True)
    del spec["nproc_per_node"]
    spec.update(directory=str(own), shared=str(shared), hosts=here.as_dict(), slurm_job=job)
    file = own / "spec.json"
    file.write_text(json.dumps(spec, indent=1))
    supervisor = [sys.executable, "-m", "garcon_backend.supervision.start", str(file)]
    os.execv(sys.executable, supervisor)


if __name__ == "__main__":
    main(sys.argv[1:])
