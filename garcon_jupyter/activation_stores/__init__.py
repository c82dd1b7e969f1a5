"""Activations on disk: the rows of a point, or of several, with where in the data each is from.

    store = garcon.open_store("acts")
    for batch in store.batches(4096):
        batch.activations, batch.place, batch.token     # torch tensors; as_="numpy" or "arrow" for those

A *store* is a directory of safetensors files of about 256 MB, which any library reads, a manifest, and journals that say
which files are whole. It is written by the ranks of a server while data streams (:mod:`garcon_jupyter.recorders.storing`),
or by a shuffle (:mod:`garcon_jupyter.exchanges`), and opens without a server, and without torch.

Not here: how activations come about, and how rows are put in another order.

``numbers``    how activations are stored: kept to the last bit, or told what is lost
``addresses``  directories that are addresses of fsspec
``pieces``     files that are read in pieces, on a disk or at an address
``copying``    a store copied to another place
``row_files``  a file of rows: safetensors whose size is known before they are
``checksums``  the checksum of a whole from those of its parts
``journal``    lines that carry their own checksum, and files that are there whole or not at all
``writing``    rows appended to files, sealed, cut back and gone on with
``point_rows``  the rows of a point, found in whatever files have them
``store``      a store, read by rows, slices, documents and batches
``batches``    rows as torch, NumPy and Arrow have them, and batches read ahead
``making``     the manifest, and a store made of arrays
``exports``    what SAELens and datasets read
"""

from __future__ import annotations

from garcon_jupyter.activation_stores.batches import StoredRows
from garcon_jupyter.activation_stores.making import from_arrays
from garcon_jupyter.activation_stores.store import ActivationStore, open_store

__all__ = ["ActivationStore", "StoredRows", "from_arrays", "open_store"]
