"""A connectome on disk: a directory of plain arrays that are mapped, not read, as an atlas is.

``connectome.json`` says what is in it. Each *table*, such as ``gate_from_heads``, has three arrays, whose first dimension is the neuron or the
head, counted over all layers in their order:

| File | Shape | What |
|---|---|---|
| ``TABLE_values`` | float32 [units, k] | the strongest connections, by size; NaN where there are fewer |
| ``TABLE_partners`` | int32 [units, k] | the partner of each: a token, or a neuron or head, counted over all layers; −1 for none |
| ``TABLE_squares`` | float64 [units] | the sum of squares of all of the unit's connections of this kind |
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.client import display_hooks
from garcon_jupyter.errors import BadData, BadRequest, UnknownName
from garcon_jupyter.experiments.connectivity.connectome.tables import (
    READS,
    TABLES,
    WRITES,
    ConnectionTable,
)
from garcon_jupyter.experiments.result import ExperimentResult
from garcon_jupyter.points import parse_point
from garcon_jupyter.wire.token_parts import plain

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
INDEX = "connectome.json"
VOCABULARY = "vocabulary.json"


@dataclass(frozen=True)
class UnitConnection:
    """A connection of a unit.

    Attributes:
        table: the kind of it, such as ``gate_from_heads``.
        point: by which the partner is called: its own, or ``embed.out`` or ``logits`` where it is a token.
        unit: the partner's number there.
        name: the text of a token; "" for others.
        value: how strong it is.
    """

    table: str
    point: str
    unit: int
    name: str
    value: float

    @property
    def partner(self) -> str:
        """What it is with, in a word or two."""
        return self.name or f"{self.point} {self.unit}"


@dataclass(frozen=True)
class UnitConnections:
    """What a connectome has of one unit.

    Attributes:
        point, unit: which it is.
        tables: of each kind the strongest connections.
        shares: of each kind, their sum of squares over that of all.
    """

    point: str
    unit: int
    tables: dict[str, tuple[UnitConnection, ...]]
    shares: dict[str, float]

    def strongest(self, table: str) -> tuple[UnitConnection, ...]:
        """Those of a kind, the strongest by size first.

        Raises:
            UnknownName: there is no such kind.
        """
        if table not in self.tables:
            raise UnknownName.among("table", table, self.tables, f"Units of {self.point} have not.")
        return self.tables[table]

    def to_frame(self) -> pd.DataFrame:
        """A row for each connection: its kind, the partner, the value, and the share of all of the unit's k of this kind.

        Raises:
            BadRequest: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise BadRequest(
                "A table is made with pandas, which is not installed.", "pip install pandas."
            ) from None
        rows = [
            (table, rank, one.point, one.unit, one.name, one.value, self.shares[table])
            for table, found in self.tables.items()
            for rank, one in enumerate(found, 1)
        ]
        columns = ["table", "rank", "point", "unit", "name", "value", "share"]
        return pd.DataFrame(rows, columns=columns)

    def __repr__(self) -> str:
        best = [f"{TABLES[t].says} {found[0].partner}" for t, found in self.tables.items() if found]
        return f"<{self.point} {self.unit}: {'; '.join(best[:3])}>"


class Connectome:
    """A connectome, opened.

    Attributes:
        path: its directory.
        index: the content of ``connectome.json``.
        points: of "heads" and "neurons", the points that they are called by, and how many each has.
        tables: names of its tables.
        k: connections of each unit in each table.
    """

    def __init__(self, path: Path, index: dict[str, Any]) -> None:
        self.path, self.index = path, index
        self.points: dict[str, dict[str, int]] = index["points"]
        self.tables: list[str] = index["tables"]
        self.k: int = index["k"]
        self._first = {
            kind: dict(zip(of, np.cumsum([0, *of.values()]).tolist(), strict=False))
            for kind, of in self.points.items()
        }
        self._arrays: dict[str, np.ndarray] = {}
        self._vocabulary: list[str] | None = None

    def array(self, name: str) -> np.ndarray:
        """An array of all units, mapped.

        Raises:
            UnknownName: there is none of this name.
        """
        if name not in self._arrays:
            if name not in self.index["arrays"]:
                raise UnknownName.among("array", name, self.index["arrays"], "It is not there.")
            self._arrays[name] = np.load(self.path / f"{name}.npy", mmap_mode="r")
        return self._arrays[name]

    def has(self, point: str, unit: int = 0) -> bool:
        """Whether it has a unit."""
        try:
            self._row(point, unit)
        except UnknownName:
            return False
        return True

    def unit(self, point: str, unit: int) -> UnitConnections:
        """The connections of a neuron or a head.

        Args:
            point: by which it writes or reads: ``layers.3.mlp.post_activation`` as well as ``.pre_activation`` or
                ``.pre_linear``; ``layers.3.attn.z`` as well as ``.q``, ``.k`` or ``.v``.
            unit: its number.

        Raises:
            UnknownName: the connectome has no such unit.
        """
        kind, name, row = self._row(point, unit)
        tables, shares = {}, {}
        for table in self._tables(kind):
            values, partners, squares = (
                self.array(f"{table}_{what}")[row] for what in ("values", "partners", "squares")
            )
            pairs = zip(values.tolist(), partners.tolist(), strict=True)
            found = [self._connection(table, to, value) for value, to in pairs if to >= 0]
            if found:
                tables[table] = tuple(found)
                kept = float(np.square(np.nan_to_num(values), dtype=np.float64).sum())
                shares[table] = kept / float(squares) if squares else 0.0
        return UnitConnections(name, int(unit), tables, shares)

    def table(self, table: str, point: str) -> ExperimentResult:
        """The connections of one kind of all units of a point, as of :func:`~garcon_jupyter.experiments.connections`.

        Raises:
            UnknownName: there is no such table, or none of these units.
        """
        import torch

        kind, name, row = self._row(point, 0)
        if table not in self._tables(kind):
            raise UnknownName.among("table", table, self._tables(kind), f"{point} has not.")
        rows = slice(row, row + self.points[kind][name])
        values, partners, squares = (
            torch.tensor(self.array(f"{table}_{what}")[rows])
            for what in ("values", "partners", "squares")
        )
        of = TABLES[table]
        layers = partners.clone()
        if of.partners != "tokens":
            starts = torch.tensor([*self._first[of.partners].values()], dtype=torch.int32)
            at = (torch.bucketize(partners, starts, right=True) - 1).clamp_min(0)
            numbers = [_layer(point) for point in self.points[of.partners]]
            layers = torch.tensor(numbers)[at].where(partners >= 0, -1)
            partners = (partners - starts[at]).where(partners >= 0, -1)
        share = (values.double().nan_to_num().square().sum(1) / squares).float()
        more = {"layer": layers, "partner": partners, "share": share}
        if of.partners == "tokens":
            del more["layer"]
        axes = {kind.removesuffix("s"): tuple(range(len(values)))}
        axes["rank"] = tuple(range(1, self.k + 1))
        facts = {"model": self.index["model"], "table": table, "limits": self.index["limits"]}
        return ExperimentResult("connectome", values, axes, f"{name}: {of.says}", facts, more)

    def shares(self) -> ExperimentResult:
        """How much of all the k strongest are, in the mean over the units of each layer: values [table, layer]."""
        import torch

        layers = sorted({_layer(point) for of in self.points.values() for point in of})
        values = torch.full((len(self.tables), len(layers)), torch.nan)
        for at, table in enumerate(self.tables):
            kept = np.square(np.nan_to_num(self.array(f"{table}_values")), dtype=np.float64).sum(1)
            squares = self.array(f"{table}_squares")
            share = np.divide(kept, squares, where=squares > 0, out=np.full(len(kept), np.nan))
            kind = TABLES[table].units
            for point, units in self.points[kind].items():
                first = self._first[kind][point]
                part = share[first : first + units]
                if not np.isnan(part).all():
                    values[at, layers.index(_layer(point))] = float(np.nanmean(part))
        return ExperimentResult(
            "connectome",
            values,
            {"table": tuple(self.tables), "layer": tuple(layers)},
            f"share of the sum of squares that the {self.k} strongest are",
            {"model": self.index["model"], "limits": self.index["limits"]},
        )

    def show(self, point: str | None = None, unit: int = 0) -> Any:
        """The connections of a unit, each a link to its partner's; without a point, how much the strongest are of all."""
        if point is None:
            return self.shares().show()
        self._row(point, unit)
        return display_hooks.drawn(self, "show", point, unit)

    def _repr_html_(self) -> str | None:
        return display_hooks.html(self.shares())

    def __repr__(self) -> str:
        units = " and ".join(
            f"{sum(of.values()):,} {kind}" for kind, of in self.points.items() if of
        )
        return f"<connectome of {units}, the {self.k} strongest of {len(self.tables)} kinds: {self.path}>"

    # -- units ---------------------------------------------------------------------------------------

    def _tables(self, kind: str) -> list[str]:
        return [table for table in self.tables if TABLES[table].units == kind]

    def _row(self, point: str, unit: int) -> tuple[str, str, int]:
        """Of a unit: whether it is a head or a neuron, the point it is called by, and its row in the arrays."""
        address = parse_point(point)
        known = [*(point for of in self.points.values() for point in of)]
        for kind, writes in WRITES.items():
            ways = {writes, *(read for units, read in READS.values() if units == kind)}
            if address is None or address.layer is None or address.template not in ways:
                continue
            name = writes.format(i=address.layer)
            if name in self.points[kind]:
                if not 0 <= unit < self.points[kind][name]:
                    there = self.points[kind][name]
                    raise UnknownName(f"{name} has no unit {unit}.", f"It has 0 to {there - 1}.")
                return kind, name, self._first[kind][name] + int(unit)
        raise UnknownName.among("point", point, known, "It is not in this connectome.")

    def _connection(self, table: str, partner: int, value: float) -> UnitConnection:
        of: ConnectionTable = TABLES[table]
        if of.partners == "tokens":
            point = "embed.out" if of.inputs else "logits"
            return UnitConnection(table, point, partner, self._text(partner), value)
        points, first = [*self.points[of.partners]], [*self._first[of.partners].values()]
        at = bisect_right(first, partner) - 1
        return UnitConnection(table, points[at], partner - first[at], "", value)

    def _text(self, token: int) -> str:
        """The text of a token; its number where the model came without a tokenizer."""
        if self._vocabulary is None:
            self._vocabulary = json.loads((self.path / VOCABULARY).read_text())
        known = token < len(self._vocabulary)
        return plain(self._vocabulary[token]) if known else f"<{token}>"


def open_connectome(path: str | Path) -> Connectome:
    """A connectome from disk; needs no server.

    Raises:
        BadData: there is none, or of a newer format, or one that is not finished.
    """
    path = Path(path).expanduser()
    try:
        index = json.loads((path / INDEX).read_text())
        newer = index["format"] > FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(
            f"{path} holds no connectome that is finished: {error}.",
            "experiments.connectome(rmodel, path) makes one, and goes on with one that was begun.",
        ) from None
    if newer:
        raise BadData(f"{path} is of format {index['format']}.", "Install a newer garcon-jupyter.")
    return Connectome(path, index)


def connectome_beside(path: Path, model: str) -> Connectome | None:
    """A connectome of a model that lies in the same folder as another directory, or in it; None where there is none."""
    for index in sorted([*path.glob(f"*/{INDEX}"), *path.parent.glob(f"*/{INDEX}")]):
        try:
            found = open_connectome(index.parent)
        except BadData:
            continue
        if found.index["model"] == model:
            return found
    return None


def _layer(point: str) -> int:
    address = parse_point(point)
    assert address is not None and address.layer is not None
    return address.layer
