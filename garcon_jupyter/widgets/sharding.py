"""Which rank holds what, as a picture: stages from left to right, shards from top to bottom.

Each box is a rank: its host and device, the layers of its stage, its share of every head and
neuron, the bytes of its parameters, and the memory it uses now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from garcon_jupyter.amounts import sized
from garcon_jupyter.widgets import svg
from garcon_jupyter.widgets.values import Values

WHAT = ("parameters", "memory")
"""Of what the bytes are, in a picture's values."""

_TOP, _GAP, _BOX, _MARGIN = 74.0, 12.0, 84.0, 24.0


@dataclass(frozen=True)
class ShardingPicture:
    """A picture of ranks; displays itself.

    Attributes:
        title: name of the model or server.
        degrees: "tp", "pp" and "dp".
        ranks: for each rank its "rank", "host", "device", "stage", "tp_rank", "replica", "layers",
            "parameter_bytes" and, where it is known, "memory" in bytes.
        sizes: what is shared out over the shards, e.g. {"heads": 9, "neurons": 1536}.
    """

    title: str
    degrees: Mapping[str, int]
    ranks: Sequence[Mapping[str, Any]]
    sizes: Mapping[str, int]

    @property
    def html(self) -> str:
        """The picture, which loads nothing."""
        return svg.figure(self._document(), self.title, self.caption)

    @property
    def caption(self) -> str:
        """The degrees in words."""
        words = {"tp": "tensor", "pp": "pipeline", "dp": "data"}
        said = [f"{words[w]}-parallel degree {n}" for w, n in self.degrees.items() if n > 1]
        count = len(self.ranks)
        return f"{count} rank{'s' if count > 1 else ''}" + (": " + ", ".join(said) if said else "")

    @property
    def values(self) -> Values:
        """Bytes of each rank, [rank, what]: of its parameters, and in use (NaN where that is not known)."""
        rows = [[rank["parameter_bytes"], rank.get("memory") or np.nan] for rank in self.ranks]
        labels = {"rank": tuple(str(rank["rank"]) for rank in self.ranks), "what": WHAT}
        whole = np.array(rows, dtype=np.float64).reshape(-1, len(WHAT))
        return Values(whole, ("rank", "what"), labels, f"{self.title}, bytes")

    def wait(self, timeout: float | None = None) -> Self:
        """Itself: it is whole from the beginning."""
        return self

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        rows = [self.caption]
        for rank in self.ranks:
            rows.append(
                f"  rank {rank['rank']} on {place(rank, self.ranks)}: {_layers(rank)}, "
                f"shard {rank['tp_rank'] + 1} of {self.degrees['tp']}, "
                f"{sized(rank['parameter_bytes'])} of parameters"
            )
        return "\n".join(rows)

    def _document(self) -> str:
        columns, rows = self.degrees["pp"], self.degrees["tp"] * self.degrees["dp"]
        width = (svg.WIDTH - 2 * _MARGIN - (columns - 1) * _GAP) / columns
        marks = [
            svg.text(_MARGIN, 32, self.title, 15, bold=True),
            svg.text(_MARGIN, 52, self.caption, 12, colour=svg.SOFT),
        ]
        for rank in self.ranks:
            row = rank["replica"] * self.degrees["tp"] + rank["tp_rank"]
            x = _MARGIN + rank["stage"] * (width + _GAP)
            marks += self._rank(rank, x, _TOP + row * (_BOX + _GAP), width)
        return svg.document(marks, _TOP + rows * (_BOX + _GAP) + _MARGIN - _GAP)

    def _rank(self, rank: Mapping[str, Any], x: float, y: float, width: float) -> list[str]:
        degree = self.degrees["tp"]
        lines = [
            place(rank, self.ranks),
            f"{_layers(rank)} · {self._share(rank['tp_rank'], degree)}",
            f"{sized(rank['parameter_bytes'])} of parameters"
            + (f" · {sized(rank['memory'])} in use" if rank.get("memory") else ""),
        ]
        replica = f" · replica {rank['replica'] + 1}" if self.degrees["dp"] > 1 else ""
        room = int(width / 6.6)
        marks = [
            svg.bar(x, y, 5, _BOX, 170 + (rank["tp_rank"] * 37) % 86),
            svg.box(x, y, width, _BOX),
            svg.text(x + 16, y + 22, f"rank {rank['rank']}{replica}", 13, bold=True),
        ]
        for number, line in enumerate(lines):
            marks.append(
                svg.text(x + 16, y + 40 + 16 * number, svg.shorten(line, room), 11, colour=svg.SOFT)
            )
        return marks

    def _share(self, shard: int, degree: int) -> str:
        if degree == 1:
            return "all heads and neurons"
        spans = []
        for what, total in self.sizes.items():
            width = -(-total // degree)
            first, last = shard * width, min((shard + 1) * width, total) - 1
            spans.append(f"{what} {first} to {last}" if last > first else f"{what[:-1]} {first}")
        return ", ".join(spans)


def place(rank: Mapping[str, Any], ranks: Sequence[Mapping[str, Any]]) -> str:
    """The device of a rank, and its host where there are several."""
    several = len({other["host"] for other in ranks}) > 1
    return f"{rank['host']} {rank['device']}" if several else str(rank["device"])


def _layers(rank: Mapping[str, Any]) -> str:
    layers = rank["layers"]
    if not layers:
        return "no layers"
    return f"layers {layers[0]} to {layers[-1]}" if len(layers) > 1 else f"layer {layers[0]}"
