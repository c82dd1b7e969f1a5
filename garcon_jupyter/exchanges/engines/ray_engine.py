"""A cluster of Ray, which carries tasks and none of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from garcon_jupyter.errors import LaunchFailed, MissingModule
from garcon_jupyter.exchanges.engines.protocol import in_vain


class RayEngine:
    """Tasks as Ray's, which runs those of a lost worker elsewhere.

    Args:
        workers: tasks at a time.
        address: of a cluster; None for one in this process's care.
    """

    def __init__(self, workers: int, address: str | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise MissingModule(
                "The engine ray needs Ray, which is not installed.",
                "pip install garcon-jupyter[ray].",
            ) from None
        self._ray, self.workers = ray, max(1, workers)
        self._mine = not ray.is_initialized()
        if self._mine:
            options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
            if address is None:
                options["num_cpus"] = self.workers
            ray.init(address=address, **options)

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], retries: int
    ) -> Iterator[Any]:
        """What the function returns of each item, in any order."""
        ray = self._ray
        run = ray.remote(num_cpus=1, max_retries=retries)(function)
        left = list(enumerate(items))
        running: dict[Any, int] = {}
        tries = dict.fromkeys(range(len(items)), 0)
        while left or running:
            while left and len(running) < self.workers:
                number, item = left.pop(0)
                running[run.remote(item)] = number
            ready, _ = ray.wait(list(running), num_returns=1)
            number = running.pop(ready[0])
            try:
                yield ray.get(ready[0])
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, BaseException) else error
                tries[number] += 1
                if in_vain(cause) or tries[number] > retries:
                    raise cause from None
                left.append((number, items[number]))
            except ray.exceptions.RayError as error:
                raise LaunchFailed(
                    f"Ray gives task {number} up: {str(error).splitlines()[0]}.",
                    "Is its cluster there, with the memory that the tasks were promised?",
                ) from None

    def close(self) -> None:
        """End the cluster, where it was started here."""
        if self._mine:
            self._ray.shutdown()
