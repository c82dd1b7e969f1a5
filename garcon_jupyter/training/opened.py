"""A record, opened: what moved which weight, by step, by datum, by neuron. Needs no model, and can be read while it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.client import display_hooks
from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.training.questions.neurons import NeuronTable, summarised
from garcon_jupyter.training.questions.notable import NotableTable, by_distinct_data, by_frequency
from garcon_jupyter.training.records import exports
from garcon_jupyter.training.records.files import manifest_of
from garcon_jupyter.training.records.journal import StoredRecord
from garcon_jupyter.training.records.tables import SIDES

if TYPE_CHECKING:
    import pandas as pd

    from garcon_jupyter.training.questions.ablation import FlipTable

Array = np.ndarray[Any, Any]


class TrainingRecord(StoredRecord):
    """A record, opened."""

    # -- what it says ------------------------------------------------------------------------

    def neurons(
        self,
        pattern: str = "*",
        side: str = SIDES[0],
        group: int = 1,
        largest: int | None = None,
    ) -> NeuronTable:
        """The neurons of some weights that have outliers, those of the most data first.

        Args:
            pattern: of names of weights, or the name of a module: ``"layers.2.mlp"``.
            side: "hidden unit" or "residual channel".
            group: join so many neighbours into one, such as the dimensions of a head.
            largest: count so many of each step, over all of its data; by default all that were recorded.

        Raises:
            UnknownName: there is no such weight.
            BadRequest: there is no such side, or groups do not divide a weight.
        """
        return summarised(self, pattern, side, group, largest)

    def notable_tokens(
        self,
        pattern: str = "*",
        by: str = "data",
        *,
        texts: Mapping[int, str] | None = None,
        **options: Any,
    ) -> NotableTable:
        """The tokens of the data that moved neurons, where they are more than chance has it.

        Args:
            pattern: of names of weights, or the name of a module.
            by: "data" for :func:`~garcon_jupyter.training.questions.notable.by_distinct_data`, "frequency" for the choice of the post,
                :func:`~garcon_jupyter.training.questions.notable.by_frequency`.
            texts: of the tokens.
            options: of that function.

        Raises:
            UnknownName: there is no such weight.
            BadRequest: there is no such way, or the record knows no tokens.
        """
        ways: dict[str, Callable[..., NotableTable]] = {
            "data": by_distinct_data,
            "frequency": by_frequency,
        }
        if by not in ways:
            raise BadRequest(f"Tokens are not chosen by {by!r}.", f"Give {' or '.join(ways)}.")
        return ways[by](self, pattern, texts=texts, **options)

    # -- pictures ----------------------------------------------------------------------------

    def show(self) -> Any:
        """How the training goes: its curves, and where outliers fall. While it goes on the picture follows it."""
        return display_hooks.drawn(self, "show")

    def show_where(self) -> Any:
        """Where outliers fall, weight × time; a selected cell tells the neurons that moved most then."""
        return display_hooks.drawn(self, "where")

    def show_neuron(
        self,
        unit: str,
        neuron: int,
        side: str = SIDES[0],
        *,
        texts: Mapping[int, str] | None = None,
        flips: FlipTable | None = None,
        **options: Any,
    ) -> Any:
        """What moved a neuron: which data when and how far, their notable tokens, and what changes without it.

        Args:
            unit: name of the weight.
            neuron: its number along the side.
            side: "hidden unit" or "residual channel".
            texts: of the tokens.
            flips: what :func:`~garcon_jupyter.training.questions.ablation.flips` found of it.
            options: of :func:`~garcon_jupyter.training.questions.notable.by_distinct_data`.

        Raises:
            UnknownName: there is no such weight.
            BadRequest: there is no such neuron, or the flips are of another.
        """
        return display_hooks.drawn(self, "neuron", unit, neuron, side, texts or {}, flips, options)

    # -- other numbers -----------------------------------------------------------------------

    def norms(self, step: int) -> dict[str, dict[int, float]]:
        """The norm of the gradient of each parameter, by datum."""
        line = self._line(step)
        rows = self._numbers(line, "norms.f4").reshape(len(line["data"]), -1)
        names = list(self.manifest["parameters"])
        return {
            name: dict(zip(line["data"], rows[:, at].tolist(), strict=True))
            for at, name in enumerate(names)
        }

    def dots(self, step: int) -> Array:
        """Dot products of the gradients of a step's data with each other, float32 [data, data].

        Raises:
            BadRequest: they were not recorded, or the step had several batches.
        """
        line = self._line(step)
        found = self._numbers(line, "dots.f4")
        size = len(line["data"])
        if len(found) != size * size:
            raise BadRequest(
                f"Step {step} had several batches, whose data were not multiplied with each other.",
                "Record with one batch a step.",
            )
        return found.reshape(size, size)

    def projections(self, step: int) -> Array:
        """Two-sided projections of the gradients of a step's data, float32 [data, units, k, k]."""
        line, k = self._line(step), self.manifest["projection"][0]
        return self._numbers(line, "projections.f4").reshape(len(line["data"]), -1, k, k)

    def to_bergson(self, path: str | Path) -> list[tuple[int, int]]:
        """Write the projections as an index of gradients that bergson reads: ``info.json`` and ``gradients.bin``.

        Its rows are the data of all steps, one after the other, and its modules the weights. A query has to be projected
        by the same matrices (:class:`garcon_jupyter.training.gradients.projections.Projections`), which are not bergson's own.

        Returns:
            (step, datum) of each row.

        Raises:
            BadRequest: there are no projections.
        """
        k = self.manifest["projection"][0]
        exports.to_bergson(Path(path), self.units, k, map(self.projections, self.steps))
        return [(step, datum) for step, line in self.steps.items() for datum in line["data"]]

    def gradient(self, step: int, datum: int, parameter: str) -> Array:
        """The whole gradient of a datum, where it was kept, in the parameter's shape."""
        at, full = self._place(step, datum), self.manifest["full"]
        if parameter not in full:
            raise UnknownName.among("parameter kept in full", parameter, full)
        found = self._numbers(self._line(step), f"full-{full.index(parameter)}.f4")
        shape = self.manifest["parameters"][parameter]
        whole: Array = found.reshape(-1, *shape)[at]
        return whole

    # -- over time ---------------------------------------------------------------------------

    def timeline(self) -> pd.DataFrame:
        """A row for each step: what the journal says, without the numbers' places."""
        import pandas as pd

        kept = ("step", "optimizer", "lr", "factor", "losses", "note", "data")
        rows = [{key: line.get(key) for key in kept} for line in self.steps.values()]
        return pd.DataFrame(rows, columns=list(kept))

    def where(self) -> pd.DataFrame:
        """How many outliers fell into each weight: a row for each chunk of steps, a column for each weight."""
        import pandas as pd

        size, rows = self.manifest["steps"], {}
        for number in self.chunks:
            counts = {m.unit.name: len(self._of_unit(number, m)) for m in self.matrices}
            rows[number * size] = counts
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("from step")

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def __repr__(self) -> str:
        return (
            f"<record of {len(self.steps):,} steps, {self.occurrences:,} data, the {self.manifest['k']:,} largest of "
            f"{sum(m.unit.size for m in self.matrices):,} entries each: {self.path}>"
        )


def open_record(path: str | Path) -> TrainingRecord:
    """A record from disk; needs no model.

    Raises:
        BadData: there is none, or of a newer format.
    """
    path = Path(path).expanduser()
    return TrainingRecord(path, manifest_of(path))
