"""The neuron atlas: what feature dashboards show, of all units of all chosen layers, from one pass over data.

    atlas = rmodel.atlas("layers.*.mlp.post_activation", "book.txt", "book.atlas")
    atlas = garcon.open_atlas("book.atlas")          # later, without a server
    atlas["layers.4.mlp.post_activation", 17].examples[0]

:mod:`~garcon_jupyter.atlas.making` makes one, :mod:`~garcon_jupyter.atlas.files` keeps it on disk,
:mod:`~garcon_jupyter.atlas.looking` shows it, and :mod:`~garcon_jupyter.atlas.exports` writes a record as others lay
theirs out.
"""

from __future__ import annotations

from garcon_jupyter.atlas.files import Atlas, Example, Record, open_atlas

__all__ = ["Atlas", "Example", "Record", "open_atlas"]
