"""The strongest connections of some layers, as functions of the weights: what is sent to the server, block by block.

Each rank has all directions of a layer at a time, and its share of the units that read. So no rank has more than two layers of weights, and
64 MiB of products, whatever the size of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from garcon_jupyter.experiments.connectivity.connectome.tables import READS, TABLES, WRITES, Extent
from garcon_jupyter.experiments.connectivity.ends import HEADS_READ, ends, heads_write, place_of
from garcon_jupyter.experiments.connectivity.heads import heads_of
from garcon_jupyter.experiments.connectivity.strongest import Strongest, products, share_of

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.experiments.connectivity.weights import RankWeights, Weights

Found = dict[tuple[str, int], Strongest]
"""Of tables and layers, what was found of the units of the layer."""


@dataclass(frozen=True)
class PairsOfLayers:
    """What layers write, and later ones read.

    Attributes:
        extent: of the connectome.
        writers, readers: the layers.
    """

    extent: Extent
    writers: tuple[int, ...]
    readers: tuple[int, ...]

    @property
    def name(self) -> str:
        """By which what it finds is kept."""
        return (
            f"layers_{self.writers[0]}-{self.writers[-1]}_to_{self.readers[0]}-{self.readers[-1]}"
        )

    @property
    def rows(self) -> Mapping[tuple[str, int], int]:
        """Of the tables and layers that it says something of, how many units they have."""
        return {
            (name, layer): self.extent.units[TABLES[name].units][layer]
            for name in self.extent.tables
            if TABLES[name].partners != "tokens"
            for layer in (self.readers if TABLES[name].inputs else self.writers)
            if layer in self.extent.units[TABLES[name].units]
        }

    def __call__(self, weights: RankWeights) -> Found:
        """Of the readers that are this rank's, and of all writers with these."""
        extent, found = self.extent, dict[tuple[str, int], Strongest]()
        first = {kind: extent.first(kind) for kind in extent.units}
        written = {i: _Heads.of(weights, extent, i) for i in self.writers}
        for j in self.readers:
            reading = [*_reading(weights, extent, j)]
            for i in (i for i in self.writers if i <= j):
                for kind, directions in _writing(weights, extent, i, written[i]):
                    for part, mine, others in reading:
                        if not _reaches(weights, kind, i, part, j):
                            continue
                        readers = READS[part][0]
                        inputs = _of(found, f"{part}_from_{kind}", j, extent, directions)
                        outputs = _of(found, f"{kind}_to_{part}", i, extent, directions)
                        for rows, values in products(others, directions):
                            start, stop = mine.start + rows.start, mine.start + rows.stop
                            inputs.add(slice(start, stop), values, first[kind][i])
                            outputs.add(slice(None), values.T, first[readers][j] + start)
        return {key: one.cpu() for key, one in found.items()}


@dataclass(frozen=True)
class TokensOfLayer:
    """What the neurons of a layer read of tokens, and write to them.

    Attributes:
        extent: of the connectome.
        layer: which.
    """

    extent: Extent
    layer: int

    @property
    def name(self) -> str:
        """By which what it finds is kept."""
        return f"tokens_of_layer_{self.layer}"

    @property
    def rows(self) -> Mapping[tuple[str, int], int]:
        """Of the tables and layers that it says something of, how many units they have."""
        units = self.extent.units["neurons"][self.layer]
        return {
            (name, self.layer): units
            for name in self.extent.tables
            if TABLES[name].partners == "tokens"
        }

    def __call__(self, weights: RankWeights) -> Found:
        """Of the neurons that are this rank's."""
        extent, found = self.extent, dict[tuple[str, int], Strongest]()
        for name, _ in self.rows:
            table = TABLES[name]
            if table.inputs:
                own = _directions(weights, READS[table.part][1], self.layer, "readers")
                tokens = _directions(weights, "embed.out", None, "writers")
            else:
                own = _directions(weights, WRITES["neurons"], self.layer, "writers")
                tokens = _directions(weights, "logits", None, "readers")
            mine = share_of(weights.rank, weights.world, len(own))
            strongest = _of(found, name, self.layer, extent, own)
            for rows, values in products(own[mine], tokens):
                strongest.add(slice(mine.start + rows.start, mine.start + rows.stop), values)
        return {key: one.cpu() for key, one in found.items()}


Block = PairsOfLayers | TokensOfLayer


def blocks(extent: Extent, at_once: int) -> Iterator[Block]:
    """All of a connectome, a block at a time.

    Args:
        at_once: layers that write, and layers that read, in one block.
    """
    parts = [extent.layers[at : at + at_once] for at in range(0, len(extent.layers), at_once)]
    for number, readers in enumerate(parts):
        for writers in parts[: number + 1]:
            block = PairsOfLayers(extent, writers, readers)
            if block.rows:
                yield block
    if extent.tokens:
        yield from (TokensOfLayer(extent, layer) for layer in extent.units["neurons"])


# -- directions of a layer -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Heads:
    """What the heads of a layer write, [H, d_v, D]; None where it has none."""

    written: Tensor | None

    @classmethod
    def of(cls, weights: Weights, extent: Extent, layer: int) -> _Heads:
        there = layer in extent.units["heads"]
        return cls(heads_write(heads_of(weights, layer)) if there else None)


def _writing(
    weights: Weights, extent: Extent, layer: int, heads: _Heads
) -> Iterator[tuple[str, Tensor]]:
    """Which units of a layer write, and their directions [units, width, D]."""
    if heads.written is not None:
        yield "heads", heads.written
    if layer in extent.units["neurons"]:
        yield "neurons", _directions(weights, WRITES["neurons"], layer, "writers")


def _reading(
    weights: RankWeights, extent: Extent, layer: int
) -> Iterator[tuple[str, slice, Tensor]]:
    """In which way units of a layer read, which of them are this rank's, and the directions of these [units, width, D]."""

    def mine(part: str, directions: Tensor) -> tuple[str, slice, Tensor]:
        own = share_of(weights.rank, weights.world, len(directions))
        return part, own, directions[own].clone()

    if layer in extent.units["heads"]:
        heads = heads_of(weights, layer)
        for part, read in HEADS_READ.items():
            yield mine(part, read(heads))
    if layer in extent.units["neurons"]:
        for part in ("gate", "linear"):
            if f"{part}_from_neurons" in extent.tables and _gated(weights, layer, part):
                yield mine(part, _directions(weights, READS[part][1], layer, "readers"))


def _gated(weights: Weights, layer: int, part: str) -> bool:
    return part == "gate" or f"layers.{layer}.mlp.gate_proj" in weights.catalog.parameters


def _reaches(weights: Weights, kind: str, i: int, part: str, j: int) -> bool:
    catalog = weights.catalog
    return place_of(catalog, WRITES[kind], i) < place_of(catalog, READS[part][1], j)


def _directions(weights: Weights, template: str, layer: int | None, side: str) -> Tensor:
    name = template if layer is None else template.format(i=layer)
    return ends(weights, name, side)[0].directions(weights)


def _of(found: Found, table: str, layer: int, extent: Extent, like: Tensor) -> Strongest:
    """What was found so far of the units of a layer in a table."""
    if (table, layer) not in found:
        units = extent.units[TABLES[table].units][layer]
        found[table, layer] = Strongest.none(units, extent.k, like)
    return found[table, layer]
