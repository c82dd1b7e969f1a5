"""Ray Data's and Dask's own shuffles beside ours and a copy: ``python -m benchmarks.other_shuffles [GB]``, with ray, dask, pandas and pyarrow installed.

The same rows of 1,152 bytes, for us as a store, for them as Parquet of fixed-size binary with a key. Each is run once, in this order, without the time in
which a cluster starts; memory is that of all processes together, at most.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.shuffling import UNITS, Watch, copy, make, shuffled
from garcon_jupyter.activation_stores import ActivationStore
from garcon_jupyter.amounts import sized
from garcon_jupyter.exchanges import keys

WIDTH = 2 * UNITS


def parquet(store: ActivationStore, path: Path) -> None:
    """The rows as Parquet, with our key of each; many files, as both like them."""
    path.mkdir()
    each = -(-store.rows // 32)
    for number in range(32):
        first = number * each
        rows = store.read(first, min(each, store.rows - first), "numpy")
        found = keys.keys_of(np.arange(first, first + len(rows)), 7).view(np.int64)
        flat = pa.py_buffer(rows.activations.tobytes())
        values = pa.Array.from_buffers(pa.binary(WIDTH), len(rows), [None, flat])
        table = pa.table({"key": pa.array(found), "row": values})
        pq.write_table(table, path / f"{number:03d}.parquet", compression=None)


def by_ray(source: Path, target: Path) -> None:
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.read_parquet(str(source)).random_shuffle(seed=7).write_parquet(str(target))


def by_dask(source: Path, target: Path) -> None:
    import dask.dataframe as dd

    frame = dd.read_parquet(source)
    frame = frame.assign(pile=frame["key"] // (1 << 59) + 16).shuffle("pile", npartitions=32)
    ordered = frame.map_partitions(lambda part: part.sort_values("key"), meta=frame._meta)
    kinds = {"key": pa.int64(), "row": pa.binary(), "pile": pa.int64()}
    ordered.to_parquet(target, schema=pa.schema(kinds), write_index=False, compression=None)


def timed(run: Callable[[Path, Path], None], source: Path, target: Path) -> tuple[float, int]:
    watch = Watch()
    watch.start()
    began = time.perf_counter()
    run(source, target)
    os.sync()
    took = time.perf_counter() - began
    watch.over.set()
    shutil.rmtree(target)
    return took, watch.most


def main(words: list[str]) -> None:
    import ray
    from distributed import Client, LocalCluster

    size = float(words[0]) * 1e9 if words else 0.5e9
    with tempfile.TemporaryDirectory(prefix="garcon-shuffles-") as name:
        folder = Path(name)
        source = make(folder / "acts", size)
        parquet(source, folder / "parquet")
        copied = copy(source.path, folder / "copy")
        print(f"{source}; cp {copied:.1f} s; load {os.getloadavg()[0]:.1f}", flush=True)
        took, most, _, _ = shuffled(source, folder / "mixed", "350MB")
        print(f"ours: {took:.1f} s ({took / copied:.1f} x), {sized(most)}", flush=True)
        with LocalCluster(2, threads_per_worker=1, dashboard_address=None) as one, Client(one):
            took, most = timed(by_dask, folder / "parquet", folder / "dask")
        print(f"dask p2p: {took:.1f} s ({took / copied:.1f} x), {sized(most)}", flush=True)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        took, most = timed(by_ray, folder / "parquet", folder / "ray")
        print(f"ray.data: {took:.1f} s ({took / copied:.1f} x), {sized(most)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
