"""The picture of activation patching: a heatmap for each pattern of points, which fills as the sweep runs."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.connection.background import Filling, answering
from garcon_jupyter.experiments.activation_patching.measures import Metric
from garcon_jupyter.experiments.clean_passes import decoder, need, whole_pieces
from garcon_jupyter.experiments.patching import POINTS, Sweep
from garcon_jupyter.widgets import PatchingWidget, Sheet
from garcon_jupyter.widgets.labels import label

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client


def patching_picture(
    rmodel: Client,
    clean: Any,
    corrupted: Any,
    answers: tuple[Any, Any] | None = None,
    metric: Metric | None = None,
    points: Sequence[str] = POINTS,
) -> PatchingWidget:
    """A picture that fills with a sweep for each pattern of points; see :class:`Sweep`."""
    if tuple(points) == POINTS:
        need(rmodel, "A sweep of patches", "layers.{i}.resid_pre", "layers.{i}.attn.z")
    names = [[a.name for a in rmodel.catalog.select(pattern)] for pattern in points]
    sweep = Sweep.of(rmodel, clean, corrupted, answers, metric)
    strings = whole_pieces(rmodel, sweep.corrupted)
    sheets = [
        _sheet(sweep, pattern, rows, strings) for pattern, rows in zip(points, names, strict=True)
    ]

    def rerun(sheet: int, row: int, column: int) -> dict[str, Any]:
        value, rows = sweep.cell(names[sheet][row], column)
        words = decoder(rmodel, [token for token, _, _ in rows])
        what = f"{sheets[sheet].column_name} {column}"
        return {
            "title": f"{names[sheet][row]}, {what}: {value:.3f} of the clean answer restored",
            "text": "next token with the patch; the mark is without it",
            "rows": [
                [label(words[token]), with_patch, without] for token, with_patch, without in rows
            ],
        }

    widget = PatchingWidget(sheets, answering(rerun), _title(rmodel, sweep))

    def swept() -> Generator[tuple[int, list[tuple[int, int, float]]], None, None]:
        for number, rows in enumerate(names):
            places = {point: row for row, point in enumerate(rows)}
            for piece in sweep.pieces(rows):
                yield number, [(places[point], at, value) for (point, at), value in piece]

    widget.later("sweep", Filling(swept(), lambda found: widget.fill_cells(*found)))
    return widget


def _sheet(sweep: Sweep, pattern: str, rows: list[str], strings: list[str]) -> Sheet:
    heads, cells = sweep.by_head(rows[0]), sweep.cells(rows[0])
    columns = [str(head) for head in range(cells)] if heads else strings
    layers = [str(sweep.rmodel.catalog.point(name).layer) for name in rows]
    blank = np.full((len(rows), cells), np.nan, dtype=np.float32)
    return Sheet(
        pattern, blank, layers, columns, column_name="head" if heads else "token", limit=1.0
    )


def _title(rmodel: Client, sweep: Sweep) -> str:
    if sweep.answers is None:
        return "patching: share of the clean run's metric"
    words = decoder(rmodel, sweep.answers)
    clean, corrupted = (words[token] for token in sweep.answers)
    return f"patching: how much of “{label(clean)}” over “{label(corrupted)}” comes back"
