"""Entry of every rank: ``python -m garcon_backend SPEC``.

Each rank meets those of other hosts, if there are any, joins the group, loads its part of the model and
binds its family. Rank 0 then becomes the kernel; the others do what it tells them.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from garcon_backend.distributed.host_rendezvous import Meeting
from garcon_backend.lockstep.command_sockets import open_link
from garcon_backend.supervision.parent import end_with_parent
from garcon_jupyter.errors import GarconError
from garcon_jupyter.user_code import guests
from garcon_jupyter.wire.failures import describe
from garcon_jupyter.wire.launch_spec import LaunchSpec


def main(spec_file: str) -> int:
    """Serve a model until told to stop; the exit code."""
    guests.host()
    spec = LaunchSpec.read(Path(spec_file))
    end_with_parent(lambda: os._exit(1))
    meeting = Meeting.of_rank(spec, spec.hosts) if spec.hosts else None
    try:
        if meeting:
            meeting.settle()
        rank = int(os.environ.get("RANK", "0"))
        link = open_link(spec, rank, meeting, lambda who: _end_after(who, spec, meeting))
        part = _load(spec, rank)
    except Exception as error:
        _report(error, spec, meeting)
        raise
    if rank == 0:
        from garcon_backend.kernel.startup import serve

        serve(spec, part, link)
    else:
        from garcon_backend.lockstep.worker import Worker

        worker = Worker(part.executor, link, spec.shared if spec.first else None)
        worker.introduce(part.facts, part.catalog)
        if spec.hosts:
            spec.ready_file.touch()
        worker.serve()
    part.mesh.leave()
    return 0


def _report(error: Exception, spec: LaunchSpec, meeting: Meeting | None) -> None:
    """Why the launch failed, for whoever waits for it on this host, and on the others.

    What all ranks refuse may end another one before rank 0 has said why; so whoever is first says it.
    """
    failure = describe(error)
    if meeting or os.environ.get("RANK", "0") == "0":
        spec.failure_file.write_text(json.dumps(failure))
    elif isinstance(error, GarconError):
        with contextlib.suppress(FileExistsError), spec.failure_file.open("x") as file:
            file.write(json.dumps(failure))
    if meeting:
        with contextlib.suppress(Exception):
            meeting.say("failure", failure)


def _end_after(who: str, spec: LaunchSpec, meeting: Meeting | None) -> None:
    """A rank of another host was lost: this one ends too, and says why."""
    spec.say_why(f"{who} was lost")
    if meeting and (failure := meeting.heard("failure")):
        spec.failure_file.write_text(json.dumps(failure))
    os._exit(1)


def _load(spec: LaunchSpec, rank: int) -> Any:
    from garcon_backend.execution.rank_loading import load_rank

    def progress(line: str) -> None:
        if rank == 0:
            print(f"[garcon] {line}", flush=True)

    return load_rank(spec, progress)


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without taking a model and an interpreter apart, which takes seconds
