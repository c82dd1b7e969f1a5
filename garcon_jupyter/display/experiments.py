"""Any result of an experiment as a picture, and as a table of its strongest numbers.

A picture has two axes: those that are layers, where two are, else the last two. Of the others there is a sheet for each place where
they are few; where they are many, one sheet shows the strongest of all, and a selected cell tells which they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.display.html import (
    _escaped,
    _folded,
    _framed,
    _heading,
    _next,
    _soft,
    _table,
)
from garcon_jupyter.experiments.result import ExperimentResult, Label

if TYPE_CHECKING:
    from garcon_jupyter.widgets import GridWidget, Sheet

MOST_SHEETS = 24
"""Sheets of a picture; of more places the strongest of all is shown."""

MOST_PLACES = {"rows": 64, "columns": 400}
"""Rows and columns of a picture; of more, those with the strongest numbers are shown."""

TOLD = 6
"""Numbers that are told of a selected cell."""

ROWS = 12
"""Rows of the table."""

_OWN = {"layout": "layer_views", "effects": "effects", "attribution_graph": "attribution_graph"}
"""Experiments whose picture is no heatmap, and the module beside this one that has a function of their name."""


# -- the table -----------------------------------------------------------------------------------


def html(found: ExperimentResult) -> str:
    """Its strongest numbers, with where they are and what stands beside them."""
    beside = found.beside()
    names = found.facts.get("names", {})
    rows = []
    for place, value in found.strongest(ROWS, magnitude=True):
        index = _index(found, place)
        more = [_named(names.get(name, {}), part[index].item()) for name, part in beside.items()]
        rows.append([*map(str, place.values()), f"{value:.4g}", *more])
    head = [*found.axes, "value", *beside]
    sides = " × ".join(f"{len(labels)}" for labels in found.axes.values()) or "one number"
    limits = found.facts.get("limits", ())
    return _framed(
        _heading(found.experiment, f"{sides}{'; ' if found.says else ''}{found.says}"),
        _table(head, [[_escaped(cell) for cell in row] for row in rows]),
        _folded("what this does not say", "".join(map(_soft, limits))) if limits else "",
        _next("found.show()", "found.to_frame()", 'found.save("found.npz")'),
    )


def _index(found: ExperimentResult, place: Mapping[str, Label]) -> tuple[int, ...]:
    return tuple(found.axes[name].index(label) for name, label in place.items())


def _named(names: Mapping[str, str], number: float) -> str:
    """A number as it is, or with its name: ``40 ' the'``."""
    if isinstance(number, int):
        word = names.get(str(number))
        return f"{number} {word!r}" if word is not None else str(number)
    return f"{number:.4g}"


# -- the picture ---------------------------------------------------------------------------------


def show(found: ExperimentResult) -> Any:
    """The picture that an experiment has of its own, or heatmaps of two axes."""
    if (module := _OWN.get(found.experiment)) is not None:
        return getattr(import_module(f"{__package__}.{module}"), found.experiment)(found)
    return heatmaps(found)


def heatmaps(found: ExperimentResult) -> GridWidget:
    """Heatmaps of two of its axes; a selected cell tells what stands behind it."""
    from garcon_jupyter.widgets import GridWidget

    plane = _Plane(found)
    widget = GridWidget(
        plane.sheets(),
        f"{found.experiment}: {found.says}" if found.says else found.experiment,
        hint="Point at a cell; a click tells what stands behind it.",
    )

    def tell(_change: Any) -> None:
        cell = (widget.sheet, widget.selected_row, widget.selected_column)
        widget.detail = {} if min(cell) < 0 else plane.told(*cell)

    widget.observe(tell, ["sheet", "selected_row", "selected_column"])
    return widget


class _Plane:
    """What of a result is rows, columns and sheets."""

    def __init__(self, found: ExperimentResult) -> None:
        self.found = found
        self.rows, self.columns = _two_axes([*found.axes])
        self.others = [name for name in found.axes if name not in (self.rows, self.columns)]
        order = [[*found.axes].index(n) for n in (*self.others, self.rows, self.columns) if n]
        values = found.values.detach().float().permute(order).numpy()
        shape = (*values.shape[: len(self.others)], *(len(self._labels(n)) for n in self._two()))
        self.values = values.reshape(shape)  # [others …, row, column]
        places = math.prod(shape[:-2])
        self.flat = self.values.reshape(places, *shape[-2:])
        self.one_each = places <= MOST_SHEETS
        strength = np.where(np.isnan(self.flat), 0, np.abs(self.flat)).max(0, initial=0)
        self.kept = {
            "rows": _strongest(strength.max(1, initial=0), MOST_PLACES["rows"]),
            "columns": _strongest(strength.max(0, initial=0), MOST_PLACES["columns"]),
        }

    def _two(self) -> tuple[str, str]:
        return self.rows, self.columns

    def _labels(self, name: str) -> tuple[Label, ...]:
        return self.found.axes[name] if name else ("",)

    def sheets(self) -> list[Sheet]:
        """One for each place of the other axes, or one of the strongest of them all."""
        if self.one_each:
            names = [self._said(self._place(at)) or "value" for at in range(len(self.flat))]
            return [self._sheet(name, v) for name, v in zip(names, self.flat, strict=True)]
        return [self._sheet(f"strongest of {' and '.join(self.others)}", self._largest())]

    def _largest(self) -> np.ndarray:
        """Of all places of the other axes the number of largest size, [row, column]."""
        sizes = np.where(np.isnan(self.flat), -1, np.abs(self.flat))
        largest: np.ndarray = np.take_along_axis(self.flat, sizes.argmax(0)[None], 0)[0]
        return largest

    def _sheet(self, name: str, values: np.ndarray) -> Sheet:
        from garcon_jupyter.widgets import Sheet, arrays

        labels = {}
        for side, axis in zip(self.kept, self._two(), strict=True):
            every, kept = self._labels(axis), self.kept[side]
            labels[side] = [str(every[at]) for at in kept]
            if len(kept) < len(every):
                name += f", {axis} the {len(kept)} strongest of {len(every):,}"
        return Sheet(
            name,
            values[np.ix_(self.kept["rows"], self.kept["columns"])],
            labels["rows"],
            labels["columns"],
            self.rows or self.found.experiment,
            self.columns or "value",
            "signed" if (self.flat < 0).any() else "positive",
            arrays.colour_limit(self.flat),
        )

    def _place(self, at: int) -> dict[str, Label]:
        """The labels of the other axes at a sheet."""
        index = np.unravel_index(at, self.values.shape[:-2])
        return {n: self._labels(n)[int(i)] for n, i in zip(self.others, index, strict=True)}

    def told(self, sheet: int, row: int, column: int) -> dict[str, Any]:
        """What stands behind a cell: what is told beside its number, or the strongest of those that it is the strongest of."""
        here = (int(self.kept["rows"][row]), int(self.kept["columns"][column]))
        cell = {n: self._labels(n)[at] for n, at in zip(self._two(), here, strict=True) if n}
        behind = self.flat[:, here[0], here[1]]
        if self.one_each:
            cell = {n: (self._place(sheet) | cell)[n] for n in self.found.axes}
            text = ", ".join(f"{name} {told}" for name, told in self._beside(cell).items())
            return {"title": f"{self._said(cell)}: {behind[sheet]:.4g}", "text": text}
        best = np.where(np.isnan(behind), -1, np.abs(behind)).argsort()[::-1][:TOLD]
        lines = [f"{self._said(self._place(at))}: {behind[at]:.4g}" for at in best.tolist()]
        return {"title": self._said(cell), "text": "; ".join(lines)}

    def _beside(self, cell: Mapping[str, Label]) -> dict[str, str]:
        names, index = self.found.facts.get("names", {}), _index(self.found, cell)
        beside = self.found.beside().items()
        return {name: _named(names.get(name, {}), part[index].item()) for name, part in beside}

    @staticmethod
    def _said(place: Mapping[str, Label]) -> str:
        return " · ".join(f"{name} {label}" for name, label in place.items())


def _two_axes(names: list[str]) -> tuple[str, str]:
    """Rows and columns: layers where two axes are of them, else the last two; "" for one that is not there."""
    layers = [name for name in names if name.endswith("layer")]
    shown = layers if len(layers) == 2 else names[-2:]
    return ("", "", *shown)[-2], ("", "", *shown)[-1]


def _strongest(strength: np.ndarray, most: int) -> np.ndarray:
    """The places with the largest numbers, in their order; all of them where they are few."""
    if len(strength) <= most:
        return np.arange(len(strength))
    return np.sort(np.argsort(-strength, kind="stable")[:most])
