"""A process that does jobs and says how long each took. Imports nothing of Garçon.

Jobs come on standard input and results leave on standard output, both as pickles.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

Job = Callable[..., Any]
"""``job(*arguments) -> result``; one that returns ``(seconds, result)`` wrapped in `Took` timed itself."""


class Took(tuple[float, Any]):
    """(seconds, result) of a job that timed only a part of what it did."""


def serve(jobs: Mapping[str, Job]) -> None:
    """Do jobs until standard input ends."""
    import torch

    torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between
    while True:
        try:
            name, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            start = time.perf_counter()
            result = jobs[name](*arguments)
            took = time.perf_counter() - start
            if isinstance(result, Took):
                took, result = result
            answer: tuple[Any, ...] = ("ok", took, plain(result))
        except Exception:  # noqa: BLE001 - the other side says what became of it
            answer = ("error", traceback.format_exc(), None)
        pickle.dump(answer, channel, protocol=5)
        channel.flush()


def plain(value: Any) -> Any:
    """Tensors as arrays, which pickle alike everywhere."""
    if hasattr(value, "detach"):
        return value.detach().numpy()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value
