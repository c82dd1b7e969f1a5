"""What each block of a connectome found, as files that are there whole or not at all, until they are put together."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from garcon_jupyter.array_files import create
from garcon_jupyter.experiments.connectivity.connectome.tables import TABLES, Extent
from garcon_jupyter.experiments.connectivity.strongest import Strongest

if TYPE_CHECKING:
    import numpy as np

    from garcon_jupyter.experiments.connectivity.connectome.blocks import Block, Found

ARRAYS = ("values", "partners", "squares")


class Pieces:
    """The pieces of a connectome in the making.

    Args:
        path: the directory of the connectome.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / "pieces"

    def has(self, block: Block) -> bool:
        """Whether a block is done."""
        return self._file(block).exists()

    def put(self, block: Block, parts: Sequence[Found]) -> None:
        """Keep what the ranks found of a block.

        Raises:
            OSError: there is no room.
        """
        import numpy as np

        arrays = {}
        for key, units in block.rows.items():
            table, layer = key
            whole = Strongest.none(units, block.extent.k)
            for found in parts:
                if key in found:
                    whole.merge(found[key])
            for name in ARRAYS:
                arrays[f"{table}.{layer}.{name}"] = getattr(whole, name).numpy()
        self.path.mkdir(exist_ok=True)
        file = self._file(block)
        beside = file.with_suffix(".writing")
        with beside.open("wb") as stream:
            np.savez(stream, **arrays)
        beside.replace(file)

    def put_together(self, blocks: Iterable[Block], extent: Extent) -> dict[str, np.ndarray]:
        """The arrays of all units beside the pieces, by name: of each table ``values``, ``partners`` and ``squares``.

        Raises:
            OSError: there is no room.
        """
        import numpy as np
        import torch

        made: dict[str, np.ndarray] = {}
        for table in extent.tables:
            units = extent.count(TABLES[table].units)
            none = Strongest.none(units, extent.k)
            for name in ARRAYS:
                filled = getattr(none, name).numpy()
                target = self.path.parent / f"{table}_{name}.npy"
                made[f"{table}_{name}"] = create(target, filled.dtype, filled.shape)
                made[f"{table}_{name}"][:] = filled
        first = {kind: extent.first(kind) for kind in extent.units}
        for block in blocks:
            with np.load(self._file(block)) as piece:
                for (table, layer), units in block.rows.items():
                    start = first[TABLES[table].units][layer]
                    rows = slice(start, start + units)
                    whole = Strongest(
                        *(torch.from_numpy(made[f"{table}_{n}"][rows]) for n in ARRAYS)
                    )
                    more = (torch.from_numpy(piece[f"{table}.{layer}.{n}"]) for n in ARRAYS)
                    whole.merge(Strongest(*more))
        return made

    def remove(self) -> None:
        """Take them away: all is put together."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _file(self, block: Block) -> Path:
        return self.path / f"{block.name}.npz"


def room_of(blocks: Iterable[Block], extent: Extent) -> int:
    """Bytes that the pieces of some blocks take."""
    return sum(
        extent.bytes_of(table, units) for b in blocks for (table, _), units in b.rows.items()
    )
