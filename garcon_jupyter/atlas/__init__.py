"""The neuron atlas: what feature dashboards show, of all units of all chosen layers, from one pass over data.

    atlas = rmodel.atlas("layers.*.mlp.post_activation", "book.txt", "book.atlas")
    atlas = garcon.open_atlas("book.atlas")          # later, without a server
    atlas["layers.4.mlp.post_activation", 17].examples[0]

:mod:`~garcon_jupyter.atlas.making` makes one, :mod:`~garcon_jupyter.atlas.files` keeps it on disk,
:mod:`~garcon_jupyter.atlas.merging` makes one of several, and :mod:`~garcon_jupyter.atlas.exports` writes a record as
others lay theirs out.

Not here: pictures of it (``display``), and the recorders that it is made with (``recorders``).

``making``        recorders on all points, one pass over the data
``writing``       arrays of all units, filled point by point, and the index at the end
``files``         a directory of plain arrays that are mapped, not read
``merging``       one atlas of several
``correlations``  which units fire together
``logits``        the tokens that a neuron's output makes more, and less, likely
``exports``       a record in the layouts that others read
``layouts``       many records, in files that others read
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from garcon_jupyter.atlas.files import Atlas, Example, Record, open_atlas


def merge_atlases(atlases: Sequence[Atlas | str | Path], path: str | Path) -> Atlas:
    """One atlas of several of the same model, points and settings, over parts of the data that have no document
    in common (:mod:`garcon_jupyter.atlas.merging`). Needs no server.

    Args:
        atlases: at least one, or their directories, in any order.
        path: the directory to write.

    Raises:
        BadData: they do not go together, or the directory cannot be written.
    """
    from garcon_jupyter.atlas import merging  # torch: opening an atlas does without

    return merging.merge(atlases, path)


__all__ = ["Atlas", "Example", "Record", "merge_atlases", "open_atlas"]
