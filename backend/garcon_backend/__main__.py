"""Entry of every rank: ``python -m garcon_backend SPEC``.

Each rank joins the group, loads its part of the model and binds its family. Rank 0 then becomes the
kernel; the others do what it tells them.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from garcon_backend.spec import LaunchSpec


def main(spec_file: str) -> int:
    """Serve a model until told to stop; the exit code."""
    spec = LaunchSpec.read(Path(spec_file))
    _end_with_parent()
    rank = int(os.environ.get("RANK", "0"))
    try:
        part = _load(spec, rank)
    except Exception as error:
        from garcon_jupyter.wire.failures import describe

        if rank == 0:
            spec.failure_file.write_text(json.dumps(describe(error)))
        raise
    if rank == 0:
        from garcon_backend.rank_zero import serve

        serve(spec, part)
    else:
        from garcon_backend.lockstep import Worker

        worker = Worker(part.executor, rank, spec.link)
        part.executor.output.to(worker.emit)
        worker.introduce(part.facts, part.catalog)
        worker.serve()
    part.mesh.leave()
    return 0


def _load(spec: LaunchSpec, rank: int) -> Any:
    from garcon_backend.part import load_part

    def progress(line: str) -> None:
        if rank == 0:
            print(f"[garcon] {line}", flush=True)

    return load_part(spec, progress)


def _end_with_parent() -> None:
    """No rank outlives the process that started it: an orphan would hold a device for ever."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
