"""A cluster of Dask, which carries tasks and none of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from garcon_jupyter.errors import LaunchFailed, MissingModule
from garcon_jupyter.exchanges.engines.protocol import in_vain


class DaskEngine:
    """Tasks as Dask's futures, which are run elsewhere when a worker is lost.

    Args:
        workers: tasks at a time.
        address: of a scheduler; None for a cluster of processes here.
    """

    def __init__(self, workers: int, address: str | None = None) -> None:
        try:
            from dask import config
            from distributed import Client, LocalCluster
        except ImportError:
            raise MissingModule(
                "The engine dask needs Dask, which is not installed.",
                "pip install garcon-jupyter[dask].",
            ) from None
        self.workers = max(1, workers)
        self._cluster: Any = None
        if address is None:
            # Its limit pauses workers; how much memory tasks take is planned here.
            config.set({"distributed.worker.daemon": True})
            self._cluster = LocalCluster(  # type: ignore[no-untyped-call, unused-ignore]
                n_workers=self.workers,
                threads_per_worker=1,
                memory_limit=None,
                dashboard_address=None,
            )
        self._client = Client(self._cluster or address)  # type: ignore[no-untyped-call, unused-ignore]

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], retries: int
    ) -> Iterator[Any]:
        """What the function returns of each item, in any order."""
        from distributed import KilledWorker, as_completed

        def submit(number: int) -> Any:
            future = self._client.submit(function, items[number], pure=False)
            numbers[future.key] = number
            return future

        numbers: dict[Any, int] = {}
        tries = dict.fromkeys(range(len(items)), 0)
        waiting = as_completed([submit(number) for number in range(len(items))])
        for future in waiting:
            if future.status in ("cancelled", "lost"):
                raise LaunchFailed(
                    "Dask's scheduler is gone, or let go of the tasks that were under way.",
                    "Give the same call again, on a cluster that is there: what was done stays.",
                )
            error = future.exception() if future.status == "error" else None
            if error is None:
                yield future.result()
                continue
            number = numbers[future.key]
            tries[number] += 1
            if in_vain(error) or tries[number] > retries:
                if isinstance(error, KilledWorker):
                    raise LaunchFailed(
                        f"Dask gives task {number} up: {error}.",
                        "Do its workers have the memory that the tasks were promised?",
                    ) from None
                raise error
            waiting.add(submit(number))

    def close(self) -> None:
        """Leave the cluster; end it, where it was started here."""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()
