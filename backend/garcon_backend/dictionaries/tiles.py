"""Latents of rows that lie on disk, computed in tiles of one shape: the same bits whoever computes them, and however the rows were dealt out.

A product of matrices rounds by its shape: a row alone gives other last bits than among a thousand. So rows are taken 1,024 at a time, by
their absolute numbers, against 256 latents at a time, by theirs, and the last rows are filled up. Latents that displace one another
(top-k) are compared tile after tile in one order, also where a part of the dictionary is held at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from garcon_backend.dictionaries.dictionary import Candidates, Dictionary
from garcon_backend.dictionaries.reading import made, plan_of
from garcon_backend.dictionaries.sparse import SparseLatents
from garcon_jupyter.errors import BadRequest

ROWS = 1024
"""Rows of a tile."""

LATENTS = 256
"""Latents of a tile, unless they come in groups."""

TileOfCodes = tuple[int, np.ndarray, np.ndarray, np.ndarray]
"""Number of a tile of rows, and of its latents that are not 0: the row in it, the latent, the value."""


class TiledEncoder:
    """A dictionary whose latents are computed in tiles.

    Args:
        path: of its files.
        memory: bytes that its weights may take; where they are more, a part of the latents is held at a time, and rows are read again for
            each.

    Raises:
        NotADictionary: the path has none.
        BadRequest: its latents are no function of one row, or it cannot be held in parts and has no room.
    """

    def __init__(self, path: str, memory: int | None = None) -> None:
        self._plan = plan_of(path)
        self.description = said = self._plan.description
        if said.form.kind not in ("token", "pursuit") or said.form.activation.joint:
            raise BadRequest(
                f"The latents of a {said.form.kind} dictionary are no function of one row of a point.",
                "Give a sparse autoencoder or a transcoder.",
            )
        self.grain = LATENTS
        if said.form.activation.kind == "groupmax":
            size = said.latents // said.form.activation.k
            self.grain = max(size, LATENTS // size * size)
        self.parts = self._cut(memory)
        self._held: tuple[range, Dictionary] | None = None

    @property
    def latent_bytes(self) -> int:
        """Of the weights of a latent."""
        return 4 * (self.description.d_in + self.description.d_out + 4)

    def _cut(self, memory: int | None) -> list[range]:
        """Parts of the latents that have room, each of whole tiles."""
        total, form = self.description.latents, self.description.form
        fitting = total if memory is None else memory // self.latent_bytes
        if fitting >= total:
            return [range(total)]
        whole_only = form.kind == "pursuit" or (form.competes and form.decoder_norms == "gate")
        each = fitting // self.grain * self.grain
        if whole_only or not each:
            raise BadRequest(
                f"The dictionary takes {total * self.latent_bytes:,} bytes, and {memory:,} are there.",
                "Give more memory=.",
            )
        return [range(first, min(first + each, total)) for first in range(0, total, each)]

    def walk(
        self, rows: Callable[[int], np.ndarray], tiles: Sequence[int]
    ) -> Iterator[TileOfCodes]:
        """The latents of tiles of rows that are not 0, each in the order of rows, then of latents.

        Where the dictionary is held in parts, a tile comes once for each of them, unless latents displace one another.

        Args:
            rows: the rows of a tile, float32 [n, d_in].
            tiles: their numbers.
        """
        best: dict[int, Candidates] = {}
        joined = self.description.form.activation.kind in ("topk", "abstopk")
        for part in self.parts:
            dictionary = self._dictionary(part)
            for tile in tiles:
                x, count = _filled(rows(tile))
                if joined:
                    best[tile] = dictionary.candidates(x, ROWS * self.grain, best.get(tile))
                    if part is not self.parts[-1]:
                        continue
                    found = dictionary.sparse_of(best.pop(tile), (ROWS, self.description.latents))
                elif self.description.form.kind == "pursuit":
                    found = dictionary.encode_sparse(x)
                else:
                    found = dictionary.encode_sparse(x, ROWS * self.grain)
                yield (tile, *_arrays(found, count))

    def _dictionary(self, part: range) -> Dictionary:
        if self._held is None or self._held[0] != part:
            self._held = None
            self._held = part, made(self._plan, part)
        return self._held[1]


def _filled(rows: np.ndarray) -> tuple[torch.Tensor, int]:
    """Rows in a tensor of their own, whose memory begins alike each time, filled up with zeros."""
    x = torch.zeros(ROWS, rows.shape[1])
    x[: len(rows)] = torch.from_numpy(rows)
    return x, len(rows)


def _arrays(found: SparseLatents, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row = found.rows.numpy()
    stop = int(row.searchsorted(count))
    return row[:stop], found.latents.numpy()[:stop], found.values.float().numpy()[:stop]
