"""One turn of a comparison of starts: a process of its own with one check-out's packages.

Prints a line of JSON: the seconds of each start by its name, and the last logits, which must be the same.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from inspect import signature
from typing import Any

import garcon_jupyter as garcon

TEXT = "The capital of France is"


def main(path: str, ranks: int) -> dict[str, Any]:
    """Launch a server, kill a rank of it, and launch another one beside it."""
    taken: dict[str, float] = {}
    # The same work as of a revision that checks nothing.
    same: Any = {"unchecked": True} if "unchecked" in signature(garcon.launch).parameters else {}

    def quiet(line: str) -> None:
        pass

    def launched(name: str) -> Any:
        garcon.launch(path, name=name, tp=ranks, progress=quiet, **same)
        return garcon.connect(name)

    def answer(model: Any) -> Any:
        return model.forward(TEXT, logits="last", probes=[])

    def timed(what: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        taken[what] = time.perf_counter() - start
        return result

    def first() -> Any:
        model = launched("first")
        answer(model)
        return model

    def recovery() -> Any:
        os.kill(model.facts["ranks"][-1]["pid"], signal.SIGKILL)
        while True:
            try:
                return answer(model)
            except garcon.ServerRestarted:
                time.sleep(0.01)  # it was not noticed yet

    model = timed("launch", first)
    time.sleep(1.0)  # what was saved is on its way
    logits = timed("recovery", recovery)
    if ranks == 1:
        second = timed("second launch", lambda: (m := launched("second"), answer(m))[0])
        second.shutdown(force=True)
    model.shutdown(force=True)
    return {"taken": taken, "logits": logits.flatten()[:8].tolist()}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
    finally:
        for server in garcon.servers():
            garcon.stop(server, force=True)
