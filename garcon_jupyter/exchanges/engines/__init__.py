"""What runs the tasks of an exchange: a function on items, on whatever machines there are.

An engine has one method, ``map(function, items, retries)``, which yields what the function returns, in any order. It carries a
few numbers; rows stay in files, on a disk that all its machines share. A task that dies is run again, elsewhere.

Not here: what tasks do.

``protocol``     what an engine is, and which there are
``local``        processes of this machine
``worker``       one of these processes
``ray_engine``   a cluster of Ray
``dask_engine``  a cluster of Dask
``slurm_engine``  job arrays of Slurm
"""

from __future__ import annotations

from garcon_jupyter.exchanges.engines.protocol import ENGINES, TaskEngine, engine_of

__all__ = ["ENGINES", "TaskEngine", "engine_of"]
