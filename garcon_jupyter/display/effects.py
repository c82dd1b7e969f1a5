"""Effects of a prompt's units as a picture: units × tokens, a sheet for each kind of effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.experiments.result import ExperimentResult
from garcon_jupyter.experiments.unit_effects.gradient_pass import BY_GRADIENT

if TYPE_CHECKING:
    from garcon_jupyter.widgets import GridWidget

MOST_ROWS = 100
"""Units of a picture, the strongest first."""

_LENGTHS = ("write norm",)


def effects(found: ExperimentResult) -> GridWidget:
    """The picture; a selected cell tells all numbers of its unit."""
    from garcon_jupyter.widgets import GridWidget, Sheet

    kinds = {BY_GRADIENT: found.values, **found.beside()}
    units = [str(unit) for unit in found.axes["unit"]][:MOST_ROWS]
    tokens = [*found.facts["names"]["position"].values()]
    cut = f"; the {MOST_ROWS} strongest units" if len(units) < len(found.axes["unit"]) else ""
    sheets = [
        Sheet(
            name,
            numbers[:MOST_ROWS].float().numpy(),
            units,
            tokens,
            row_name="unit",
            scale="positive" if name in _LENGTHS else "signed",
        )
        for name, numbers in kinds.items()
        if not bool(np.isnan(numbers.numpy()).all())
    ]
    widget = GridWidget(
        sheets,
        f"effects on {_measured(found)}{cut}",
        hint="Point at a cell; a click tells all numbers of its unit; m for the next kind of effect.",
    )

    def tell(_change: Any) -> None:
        row, column = widget.selected_row, widget.selected_column
        if min(row, column) < 0 or bool(found.values[row, column].isnan()):
            widget.detail = {}
            return
        numbers = [f"{name} {values[row, column]:.4g}" for name, values in kinds.items()]
        title = f"{units[row]} at {column} {tokens[column]!r}"
        widget.detail = {"title": title, "text": ", ".join(numbers)}

    widget.observe(tell, ["selected_row", "selected_column"])
    return widget


def _measured(found: ExperimentResult) -> str:
    words = found.facts.get("answer words")
    if not words:
        return "the metric"
    of = f"logit of {words[0]!r}"
    return of if len(words) == 1 else f"{of} less that of {words[1]!r}"
