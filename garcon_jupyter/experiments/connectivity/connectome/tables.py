"""What is connected with what in a connectome, and how much room it takes.

A *table* has the strongest connections of all neurons or of all heads with partners of one kind, read in one way: ``gate_from_heads`` has, of
each neuron, the heads that its gate reads most; ``neurons_to_v``, of each neuron, the heads whose values read it most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from garcon_jupyter.errors import BadRequest, PointUnavailable
from garcon_jupyter.experiments.connectivity.ends import check_neurons
from garcon_jupyter.experiments.connectivity.folding import check_one_stream, has_point
from garcon_jupyter.experiments.connectivity.heads import layers_of_heads

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client
    from garcon_jupyter.points import Catalog

WRITES = {"heads": "layers.{i}.attn.z", "neurons": "layers.{i}.mlp.post_activation"}
"""The units of a connectome, and the points by which they write; by these they are called."""

READS = {
    "q": ("heads", "layers.{i}.attn.q"),
    "k": ("heads", "layers.{i}.attn.k"),
    "v": ("heads", "layers.{i}.attn.v"),
    "gate": ("neurons", "layers.{i}.mlp.pre_activation"),
    "linear": ("neurons", "layers.{i}.mlp.pre_linear"),
}
"""In which ways units read, whose ways these are, and the points by which they do."""

SAID = {"q": "query", "k": "key", "v": "value", "gate": "gate", "linear": "linear part"}
"""What each way is called."""

PER_CONNECTION, PER_UNIT = 8, 8
"""Bytes of a connection, a float32 and an int32, and of a unit's sum of squares, a float64."""


@dataclass(frozen=True)
class ConnectionTable:
    """The strongest connections of units with partners of one kind.

    Attributes:
        units: whose they are: heads or neurons.
        partners: what they are connected with: heads, neurons or tokens.
        part: the way in which the reader reads, of :data:`READS`; "logits" where tokens read.
        inputs: whether the units read, and their partners write.
    """

    units: str
    partners: str
    part: str
    inputs: bool

    @property
    def name(self) -> str:
        """Such as ``gate_from_heads`` or ``neurons_to_v``."""
        return (
            f"{self.part}_from_{self.partners}" if self.inputs else f"{self.units}_to_{self.part}"
        )

    @property
    def says(self) -> str:
        """In words: "gate reads heads", "read by values of heads"."""
        if self.inputs:
            return f"{SAID[self.part]} reads {self.partners}"
        return (
            "raises tokens"
            if self.part == "logits"
            else f"read by {SAID[self.part]} of {self.partners}"
        )


def _all_tables() -> Iterable[ConnectionTable]:
    for part, (units, _) in READS.items():
        if units == "neurons":
            yield ConnectionTable(units, "tokens", part, True)
        for partners in WRITES:
            yield ConnectionTable(units, partners, part, True)
    for units in WRITES:
        for part, (partners, _) in READS.items():
            yield ConnectionTable(units, partners, part, False)
    yield ConnectionTable("neurons", "tokens", "logits", False)


TABLES = {table.name: table for table in _all_tables()}
"""All tables, by name. Heads and tokens are not connected here: ``head_circuits`` says more of them."""


@dataclass(frozen=True)
class Extent:
    """What of a model a connectome is of.

    Attributes:
        k: connections of each unit in each table.
        layers: all layers that are in it.
        units: of "heads" and "neurons", how many each layer has that has them.
        tables: names of the tables.
        tokens: how many tokens there are; 0 where they are left out.
        left_out: what is not in it, and why, a sentence each.
    """

    k: int
    layers: tuple[int, ...]
    units: Mapping[str, Mapping[int, int]]
    tables: tuple[str, ...]
    tokens: int
    left_out: tuple[str, ...] = ()

    def first(self, kind: str) -> dict[int, int]:
        """Of each layer that has heads or neurons, the number of its first, counted over all layers."""
        found, at = {}, 0
        for layer, units in self.units[kind].items():
            found[layer] = at
            at += units
        return found

    def count(self, kind: str) -> int:
        """How many heads, neurons or tokens."""
        return self.tokens if kind == "tokens" else sum(self.units[kind].values())

    def bytes_of(self, table: str, units: int) -> int:
        """Of the rows of so many units in a table."""
        return units * (PER_CONNECTION * self.k + PER_UNIT)

    @property
    def bytes(self) -> int:
        """What it takes on disk, but for the vocabulary."""
        return sum(self.bytes_of(name, self.count(TABLES[name].units)) for name in self.tables)

    @property
    def bytes_in_full(self) -> int:
        """What all connections would take, a float32 each."""
        total = 0
        for name in self.tables:
            table = TABLES[name]
            if table.partners == "tokens":
                total += 4 * self.count(table.units) * self.tokens
            elif table.inputs:  # the other side's table has the same connections
                writers, readers = self.units[table.partners], self.units[table.units]
                pairs = [(i, j) for i in writers for j in readers if i < j]
                total += 4 * sum(writers[i] * readers[j] for i, j in pairs)
        return total


def extent_of(rmodel: Client, k: int, layers: Iterable[int] | None, tokens: bool) -> Extent:
    """What of a model can be in its connectome.

    Raises:
        BadRequest: k is less than 1, or there is no such layer.
        PointUnavailable: neither heads nor neurons can be read from its weights; says why.
    """
    catalog = rmodel.catalog
    check_one_stream(catalog)
    if k < 1:
        raise BadRequest(f"k is {k}.", "Ask for at least 1.")
    chosen = _chosen(catalog, layers)
    heads, why_heads = _layers_with_heads(rmodel, chosen)
    neurons, why_neurons = _layers_with_neurons(catalog, chosen)
    if not heads and not neurons:
        raise PointUnavailable(
            f"No layer has heads or neurons that can be read from weights: {'; '.join((*why_heads, *why_neurons))}.",
            "%garcon params lists the model's parameters.",
        )
    units = {
        "heads": dict.fromkeys(heads, catalog.sizes["H"]),
        "neurons": {layer: _neurons(rmodel, layer) for layer in neurons},
    }
    vocabulary = catalog.sizes.get("V", 0) if tokens and neurons else 0
    linear = any(f"layers.{layer}.mlp.gate_proj" in catalog.parameters for layer in neurons)
    there = {"heads": bool(heads), "neurons": bool(neurons), "tokens": bool(vocabulary)}
    tables = tuple(
        name
        for name, table in TABLES.items()
        if there[table.units] and there[table.partners] and (linear or table.part != "linear")
    )
    return Extent(k, chosen, units, tables, vocabulary, (*why_heads, *why_neurons))


def _chosen(catalog: Catalog, layers: Iterable[int] | None) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(catalog.n_layers))
    chosen = tuple(sorted({int(layer) for layer in layers}))
    if not chosen or chosen[0] < 0 or chosen[-1] >= catalog.n_layers:
        raise BadRequest(
            f"Layers {', '.join(map(str, chosen)) or 'none'} are not all there.",
            f"The model has 0 to {catalog.n_layers - 1}.",
        )
    return chosen


def _layers_with_heads(rmodel: Client, chosen: tuple[int, ...]) -> tuple[list[int], list[str]]:
    try:
        layers, left_out = layers_of_heads(rmodel)
    except PointUnavailable as error:
        return [], [error.problem.removesuffix(".")]
    return [layer for layer in chosen if layer in layers], left_out


def _layers_with_neurons(catalog: Catalog, chosen: tuple[int, ...]) -> tuple[list[int], list[str]]:
    found: list[int] = []
    without: list[int] = []
    for layer in chosen:
        try:
            check_neurons(catalog, layer)
            there = has_point(catalog, WRITES["neurons"], layer)
        except PointUnavailable:
            there = False
        (found if there else without).append(layer)
    reason = catalog.refused.get(WRITES["neurons"], "no down_proj is the layer's own")
    said = f"neurons of layer{'s' * (len(without) > 1)} {', '.join(map(str, without))}: left out, {reason}"
    return found, [said] if without else []


def _neurons(rmodel: Client, layer: int) -> int:
    shape = rmodel.probe_points[WRITES["neurons"].format(i=layer)].shape
    size = 1
    for letter in shape[2:]:
        size *= int(letter)
    return size
