"""The first process of a server on a host: ``python -m garcon_backend.supervision.start SPEC``.

It imports what ranks import, while the launch may still think about the spec, forks the *preloaded* process, from which they come, and becomes the supervisor. Where
nothing can be forked it imports only what a supervisor needs, and each rank imports for itself: the *cold* way.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from garcon_backend.supervision import preloaded
from garcon_jupyter.errors import LibraryChanged
from garcon_jupyter.wire import forking
from garcon_jupyter.wire.failures import describe
from garcon_jupyter.wire.launch_spec import LaunchSpec


def main(spec_file: str) -> int:
    """Run a server to its end; the exit code."""
    # A signal to end waits until the supervisor can bury what it leaves.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    environment, source = dict(os.environ), None
    try:
        if forks := preloaded.possible():
            preloaded.preload()
        from garcon_backend.supervision import supervisor
    except LibraryChanged as error:
        if _given(Path(spec_file)):
            LaunchSpec.read(Path(spec_file)).failure_file.write_text(json.dumps(describe(error)))
        return 1

    if not _given(Path(spec_file)):
        return 1
    if forks:
        source = preloaded.Preloaded.fork(environment, _door(Path(spec_file)))
    return supervisor.main(spec_file, source)


def _given(spec_file: Path) -> bool:
    """Whether the spec is there. A launch that still works on it writes it, and then lets go of this process's
    standard input; where the launch fails, or its process ends, it does only the latter."""
    if not spec_file.exists():
        with open(0, "rb", closefd=False) as launch:
            launch.read()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return spec_file.exists()


def _door(spec_file: Path) -> Path | None:
    """Where other launches find the preloaded process. Not of a server over hosts: what is forked from it
    would belong to its job, or end with its host's part of the launch."""
    spec = json.loads(spec_file.read_text())
    return None if spec.get("hosts") else Path(spec["directory"]) / forking.SOCKET


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
