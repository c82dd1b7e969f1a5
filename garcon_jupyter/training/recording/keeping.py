"""What a recording keeps of each datum: its largest gradients, and numbers of all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.errors import UnknownParameter
from garcon_jupyter.training.gradients.outliers import Outliers, units_of
from garcon_jupyter.training.gradients.projections import Projections
from garcon_jupyter.training.recording.axes import hidden_axes, stream_width
from garcon_jupyter.training.records.chunks import Forms, matrices_of

if TYPE_CHECKING:
    from torch.nn import Module

    from garcon_jupyter.training.gradients.per_datum import PerDatum
    from garcon_jupyter.training.gradients.reading import Reader

Array = np.ndarray[Any, Any]


class Keeping:
    """What is kept, by the options of :func:`garcon_jupyter.training.record`.

    Args:
        model: that is recorded.
        reader: of its gradients.
        options: of the recording.

    Attributes:
        units: the weights among which outliers are looked for.
        forms: of the outliers on disk.
        full: parameters whose gradients are kept whole.

    Raises:
        UnknownParameter: a pattern names no trained parameter.
    """

    def __init__(self, model: Module, reader: Reader, options: Mapping[str, Any]) -> None:
        self.model, self._reader, self._options = model, reader, options
        self.units = units_of(self._shapes(options["units"]))
        self.forms = Forms(
            tuple(matrices_of(self.units, hidden_axes(model, self.units, options["hidden"]))),
            options["moves"],
        )
        self._outliers = Outliers(self.units, options["k"])
        self._projections = Projections(self.units, options["projection"], options["seed"])
        self.full = self.matching(options["full"])

    def _shapes(self, wanted: Sequence[str] | None) -> dict[str, Sequence[int]]:
        """The matrices among the trained parameters: those outside of tables and heads, or those that patterns name."""
        from torch import nn

        parameters = self._reader.parameters
        matrices = {name: each for name, each in parameters.items() if each.dim() >= 2}
        if wanted is None:
            tables = {id(m.weight) for m in self.model.modules() if isinstance(m, nn.Embedding)}
            rows = {m.num_embeddings for m in self.model.modules() if isinstance(m, nn.Embedding)}
            width = stream_width(self.model)
            return {
                name: tuple(each.shape)
                for name, each in matrices.items()
                if id(each) not in tables and not (each.shape[0] in rows and each.shape[1] == width)
            } or {name: tuple(each.shape) for name, each in matrices.items()}
        chosen = self.matching(wanted)
        return {name: tuple(matrices[name].shape) for name in chosen if name in matrices}

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """Names of trained parameters that one of some patterns fits."""
        known = [*self._reader.parameters]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in known):
                raise UnknownParameter.among("trained parameter", pattern, known)
        return [name for name in known if any(fnmatchcase(name, p) for p in patterns)]

    def manifest(self) -> dict[str, Any]:
        """What ``record.json`` says of it."""
        options, parameters = self._options, self._reader.parameters
        return {
            "model": type(self.model).__name__,
            "parameters": {name: [*each.shape] for name, each in parameters.items()},
            "units": [
                [m.unit.name, m.unit.rows, m.unit.columns, m.axis] for m in self.forms.matrices
            ],
            "k": options["k"],
            "moves": options["moves"],
            "norms": options["norms"],
            "dots": options["dots"],
            "projection": [options["projection"], options["seed"]],
            "full": self.full,
            "left_out": dict(self._reader.left_out),
            "uncovered": list(options["uncovered"]),
            "says": "gradient of each datum's share of the batch's loss, summed over its tokens, before clipping",
        }

    @property
    def bytes_per_datum(self) -> dict[str, int]:
        """How many bytes on disk each datum takes, by what is kept of it; without its tokens."""
        numbers = {
            "outliers": self._outliers.k * self.forms.sealed(1).itemsize,
            "norms": 4 * len(self._reader.parameters) * self._options["norms"],
            "projections": 4 * self._projections.size,
        }
        sizes = {name: 4 * self._reader.parameters[name].numel() for name in self.full}
        return {**{name: each for name, each in numbers.items() if each}, **sizes}

    def largest(self, batch: PerDatum) -> list[Array]:
        """The outliers of each datum of a batch, as they are written."""
        found = []
        for places, values in self._outliers.of(batch):
            entries = np.zeros(len(places), self.forms.open)
            entries["index"], entries["value"] = places, values
            found.append(entries)
        return found

    def numbers(self, batch: PerDatum) -> dict[str, Array]:
        """What else is kept of a batch, by the name of its stream."""
        import torch

        found: dict[str, Array] = {}
        if self._options["norms"]:
            rows = [
                batch.squares(name).sqrt().float()
                if name in batch.sites
                else torch.full((len(batch.data),), float("nan"))
                for name in self._reader.parameters
            ]
            found["norms.f4"] = torch.stack(rows, 1).numpy()
        if self._options["dots"]:
            found["dots.f4"] = batch.dots().float().numpy()
        if self._projections.size:
            found["projections.f4"] = self._projections.of(batch).float().numpy()
        for number, name in enumerate(self.full):
            found[f"full-{number}.f4"] = batch.gradient(name).float().numpy()
        return found
