"""Real ranks for tests: processes of torch's own launcher that talk over gloo.

To import torch, transformers and us takes a rank seconds, and what it computes here mostly less. So ranks are forked from a process that has imported all of
it, as those of a server are; that starts with the first of them. Where a process's own memory matters, it is a fresh one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

IMPORTED = "tests.backend.rank_imports"


@contextmanager
def signals_kept() -> Iterator[None]:
    """The launcher takes the signals of its process for itself, and keeps them: Ctrl-C would be another error
    in all tests that follow."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    former = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def run_on_ranks(
    world: int, function: Callable[..., Any], *args: Any, fresh: bool = False
) -> list[Any]:
    """Call a module-level function on so many ranks at once; what each returned, by rank.

    It must return what pickles without shared memory: numbers, strings and the like.

    Args:
        world: how many ranks.
        function: what each calls.
        args: what it is given.
        fresh: start each as a process that has imported nothing, in place of a fork of one that has.
    """
    multiprocessing.set_forkserver_preload([IMPORTED])
    with tempfile.TemporaryDirectory() as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=world,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.05,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            start_method="spawn" if fresh else "forkserver",
        )
        # A store shared between agent and ranks keeps stale keys, on which a second group can hang.
        environment = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
        with mock.patch.dict(os.environ, environment), signals_kept():
            results = elastic_launch(config, function)(*args)
    return [results[rank] for rank in range(world)]
