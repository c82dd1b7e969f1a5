"""What an engine is, and which there are."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, Protocol

from garcon_jupyter.errors import GarconError, UnknownName, Unreachable


class TaskEngine(Protocol):
    """Runs a function on items.

    Attributes:
        workers: how many items are run at a time.
    """

    workers: int

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], retries: int
    ) -> Iterator[Any]:
        """What the function returns of each item, in any order.

        Args:
            function: of a module, so that others can import it.
            items: each a small value that can be pickled.
            retries: how often an item is run again after its process died, hung or failed.

        Raises:
            GarconError: what the function raised; it is not tried again.
            LaunchFailed: an item's process died more often than that.
        """
        ...

    def close(self) -> None:
        """End what the engine started."""
        ...


ENGINES = {
    "local": "garcon_jupyter.exchanges.engines.local:LocalEngine",
    "ray": "garcon_jupyter.exchanges.engines.ray_engine:RayEngine",
    "dask": "garcon_jupyter.exchanges.engines.dask_engine:DaskEngine",
    "slurm": "garcon_jupyter.exchanges.engines.slurm_engine:SlurmEngine",
}
"""Where each engine is at home; none is imported before it is asked for."""


def engine_of(name: str | TaskEngine, workers: int) -> TaskEngine:
    """An engine by its name: "local", "ray", "dask", "slurm"; with an address behind a colon, ``dask:tcp://10.0.0.1:8786``, on that cluster,
    or with options, ``slurm:--partition=short``.

    Raises:
        UnknownName: there is none.
        MissingModule: it needs what is not installed.
    """
    if not isinstance(name, str):
        return name
    word, _, address = name.partition(":")
    if word not in ENGINES:
        raise UnknownName.among("engine", word, ENGINES, f"There are {', '.join(ENGINES)}.")
    module, _, kind = ENGINES[word].partition(":")
    made: TaskEngine = getattr(import_module(module), kind)(workers, address or None)
    return made


def in_vain(error: BaseException) -> bool:
    """Whether it is of no use to run a task again that raised this."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    ours = isinstance(error, GarconError) and not isinstance(error, Unreachable)
    return full or ours or isinstance(error, (TypeError, MemoryError))
