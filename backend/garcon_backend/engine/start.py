"""The first process of a server on a host: ``python -m garcon_backend.engine.start SPEC``.

It imports what ranks import, forks the *preloaded* process, from which they come, and becomes the supervisor. Where
nothing can be forked it imports only what a supervisor needs, and each rank imports for itself: the *cold* way.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from garcon_backend.engine import preloaded
from garcon_jupyter.wire import forking


def main(spec_file: str) -> int:
    """Run a server to its end; the exit code."""
    # A signal to end waits until the supervisor can bury what it leaves.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    environment = dict(os.environ)
    source = None
    if preloaded.possible():
        preloaded.preload()
        source = preloaded.Preloaded.fork(environment, _door(Path(spec_file)))
    from garcon_backend.engine import supervisor

    return supervisor.main(spec_file, source)


def _door(spec_file: Path) -> Path | None:
    """Where other launches find the preloaded process. Not of a server over hosts: what is forked from it
    would belong to its job, or end with its host's part of the launch."""
    spec = json.loads(spec_file.read_text())
    return None if spec.get("hosts") else Path(spec["directory"]) / forking.SOCKET


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
