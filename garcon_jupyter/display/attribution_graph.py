"""An attribution graph as a picture: layers × positions, in each cell the nodes that are there; a cell that is selected tells their edges."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.experiments.result import ExperimentResult

if TYPE_CHECKING:
    from garcon_jupyter.widgets import GridWidget

LOGITS, TOKENS = "logits", "tokens"

TOLD = 4
"""Nodes of a cell, and edges of a node, that are told."""


def attribution_graph(found: ExperimentResult) -> GridWidget:
    """The picture: influence by layer and position, and the names of the nodes."""
    from garcon_jupyter.widgets import GridWidget, Sheet

    drawn = _GraphCells(found)
    rows = [str(row) for row in drawn.rows]
    sheets = [
        Sheet(name, values, rows, drawn.tokens, row_name="layer", scale="positive")
        for name, values in drawn.numbers().items()
    ]
    facts = found.facts
    widget = GridWidget(
        sheets,
        f"attribution graph: {len(facts['nodes'])} nodes, {drawn.edges} edges",
        drawn.words(),
        hint="Point at a cell for its nodes; a click tells their edges; m for the next sheet.",
    )

    def tell(_change: Any) -> None:
        row, column = widget.selected_row, widget.selected_column
        widget.detail = {} if min(row, column) < 0 else drawn.told(row, column)

    widget.observe(tell, ["selected_row", "selected_column"])
    return widget


class _GraphCells:
    """Which nodes are in which cell."""

    def __init__(self, found: ExperimentResult) -> None:
        self.found, self.nodes = found, found.facts["nodes"]
        self.tokens = [*found.facts["tokens"]]
        layers = found.facts["layers"]
        self.rows: list[str | int] = [LOGITS, *reversed(range(layers)), TOKENS]
        self.sources = {str(name): at for at, name in enumerate(found.axes["source"])}
        self.targets = {str(name): at for at, name in enumerate(found.axes["target"])}
        self.edges = int((~found.values.isnan()).sum())
        whole = float(found.more["influence"].sum()) or 1.0
        self.weights = {
            name: node["probability"]
            if node["kind"] == "logit"
            else float(found.more["influence"][self.sources[name]]) / whole
            for name, node in self.nodes.items()
        }
        self.cells: dict[tuple[int, int], list[str]] = defaultdict(list)
        for name, node in self.nodes.items():
            row = {"logit": LOGITS, "token": TOKENS}.get(node["kind"], node["layer"])
            self.cells[self.rows.index(row), node["position"]].append(name)
        for names in self.cells.values():
            names.sort(key=lambda name: -self.weights[name])

    def numbers(self) -> dict[str, np.ndarray]:
        """Of each cell the share of influence of its latents and errors; NaN where no node is."""
        made = {}
        for title, kinds in (
            ("share of influence", ("latent", "error", "token", "logit")),
            ("share of influence of latents", ("latent",)),
            ("share of influence of errors", ("error",)),
        ):
            values = np.full((len(self.rows), len(self.tokens)), math.nan, dtype=np.float32)
            for cell, names in self.cells.items():
                mine = [self.weights[n] for n in names if self.nodes[n]["kind"] in kinds]
                if mine:
                    values[cell] = sum(mine)
            if not np.isnan(values).all():
                made[title] = values
        return made

    def words(self) -> list[list[list[tuple[str, float]]]]:
        """The strongest nodes of each cell, by short names."""
        return [
            [
                [(self._short(name), self.weights[name]) for name in self.cells[row, column][:TOLD]]
                for column in range(len(self.tokens))
            ]
            for row in range(len(self.rows))
        ]

    def _short(self, name: str) -> str:
        node = self.nodes[name]
        if node["kind"] == "latent":
            return f"{node['dictionary']} {node['latent']}"
        return str(node["word"]) if node["kind"] == "logit" else name.rpartition(" at ")[0]

    def told(self, row: int, column: int) -> dict[str, Any]:
        """The nodes of a cell with their strongest edges."""
        names = self.cells[row, column]
        lines = []
        for name in names[:TOLD]:
            into, out = self._into(name), self._out_of(name)
            ways = [f"from {into}" if into else "", f"to {out}" if out else ""]
            lines.append(f"{name}: {'; '.join(way for way in ways if way) or 'no edge is kept'}")
        more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
        title = f"{self.rows[row]} at {column} {self.tokens[column]!r}: {len(names)} nodes"
        return {"title": title, "text": " | ".join(lines) + more}

    def _into(self, name: str) -> str:
        if name not in self.targets:
            return ""
        return self._strongest(self.found.values[self.targets[name]], [*self.sources])

    def _out_of(self, name: str) -> str:
        if name not in self.sources:
            return ""
        return self._strongest(self.found.values[:, self.sources[name]], [*self.targets])

    @staticmethod
    def _strongest(edges: Any, names: list[str]) -> str:
        sizes = edges.abs().nan_to_num(nan=-1.0)
        best = [at for at in sizes.argsort(descending=True)[:TOLD].tolist() if sizes[at] >= 0]
        return ", ".join(f"{names[at]} {float(edges[at]):+.3g}" for at in best)
