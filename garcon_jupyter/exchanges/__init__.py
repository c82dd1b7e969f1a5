"""Rows of stores in another order: exchanged between tasks by files.

    mixed = garcon.shuffle("acts", "acts-mixed", seed=7, memory="1 GB")

Each row has a key, of its number and the seed. Tasks read the rows, write them by ranges of the key into files (as often as memory
asks for), and others read a range, sort it and write it. The order depends on the key alone, and so do the bytes: not on how
many tasks there were, how large, or what ran them. An *engine* runs functions on items, and nothing else; rows never pass
through it.

Not here: what a store is, and where its activations come from.

``keys``      a key for each row number, of a seed; and where the keys of n rows are cut into ranges of equal size
``piles``     files of rows by ranges of the key, as one task writes them and others read
``planning``  how many ranges and passes a memory takes, what they read and write; on paper too
``tasks``     what is run by an engine: rows to piles, and piles to files of a store
``exchange``  all passes of one exchange, gone on with where it was
``alone``     a directory that one process works in
``disk_room``  whether a disk suffices, and what to say where it does not
``announcing``  how such work is found by others, paused, and gone on with
``shuffle``   a store in an order that a seed draws from all
``publishing``  a result that is made in a directory, and put to an address
``engines``   what runs tasks: processes of this machine, Ray, Dask, Slurm
"""

from __future__ import annotations

from garcon_jupyter.exchanges.planning import ExchangePlan, on_paper, reach
from garcon_jupyter.exchanges.shuffle import shuffle

__all__ = ["ExchangePlan", "on_paper", "reach", "shuffle"]
