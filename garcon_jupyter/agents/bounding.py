"""Answers made small: arrays are kept and told in short, long lists are cut, and said to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel

from garcon_jupyter.agents.kept_arrays import STRONGEST, KeptArray, Shelf, number
from garcon_jupyter.operations.analyses import ResultAnswer
from garcon_jupyter.operations.operation import Operation
from garcon_jupyter.operations.plain_data import Array
from garcon_jupyter.operations.readings import PointAnswer

LIST = 100
"""Entries of a list that are told; of a longer one the first, and how many there are."""

MANY, FEW = 8, 2
"""After so many arrays of one answer, of each so many of the strongest are told."""

TEXT = 4000
"""Letters of a text that are told."""


def by_bytes(operation: Operation[Any, Any], asked: Any) -> Any:
    """The request with numbers as bytes, which are quicker to read than lists."""
    return (
        asked.model_copy(update={"form": "base64"})
        if "form" in operation.request.model_fields
        else asked
    )


class Bounding:
    """Makes one answer small.

    Attributes:
        kept: the arrays of the answer, in order.
    """

    def __init__(self, shelf: Shelf, of: str) -> None:
        """Arrays go to a shelf.

        Args:
            of: what they are of, in words.
        """
        self._shelf, self._of = shelf, of
        self.kept: list[KeptArray] = []

    def small(self, answer: BaseModel) -> dict[str, Any]:
        """The answer, as plain data of bounded size."""
        told: dict[str, Any] = self._told(answer, "")
        return told

    def _told(self, value: Any, where: str) -> Any:
        if isinstance(value, Array):
            return self._keep(value, None, where)
        if isinstance(value, ResultAnswer):
            return self._result(value)
        if isinstance(value, PointAnswer):
            return self._activation(value, where)
        if isinstance(value, BaseModel):
            return self._fields(
                {name: getattr(value, name) for name in type(value).model_fields}, where
            )
        if isinstance(value, Mapping):
            return self._fields(value, where)
        if isinstance(value, list | tuple):
            return self._listed(value, where)
        if isinstance(value, str):
            return value if len(value) <= TEXT else f"{value[:TEXT]}… ({len(value):,} letters)"
        return number(value) if isinstance(value, float) else value

    def _fields(self, fields: Mapping[Any, Any], where: str) -> dict[str, Any]:
        told = {
            str(name): self._told(value, f"{where}.{name}".strip("."))
            for name, value in list(fields.items())[:LIST]
        }
        if len(fields) > LIST:
            told["…"] = f"{len(fields):,} in all"
        return told

    def _listed(self, values: Sequence[Any], where: str) -> list[Any]:
        told = [self._told(value, f"{where}[{n}]") for n, value in enumerate(values[:LIST])]
        if len(values) > LIST:
            told.append(f"… {len(values):,} in all; ask for less to see the others")
        return told

    def _result(self, answer: ResultAnswer) -> dict[str, Any]:
        fields = {name: getattr(answer, name) for name in type(answer).model_fields}
        axes = fields.pop("axes")
        shape, more = answer.values.shape, fields.pop("more")
        told = self._fields({"experiment": fields["experiment"], "says": fields["says"]}, "")
        told["values"] = self._keep(answer.values, axes, "values")
        told["more"] = {
            name: self._keep(each, axes if each.shape == shape else None, name)
            for name, each in more.items()
        }
        return {**told, "facts": self._told(fields["facts"], "facts")}

    def _activation(self, read: PointAnswer, where: str) -> dict[str, Any]:
        told: dict[str, Any] = {"point": read.point, "dtype": read.dtype}
        if read.strongest is not None:
            told["axes"] = [*read.axes]
            told["strongest"] = self._told(read.strongest, f"{where}.strongest")
        if read.values is not None:
            axes = dict.fromkeys(read.axes) if len({*read.axes}) == len(read.values.shape) else None
            told["values"] = self._keep(read.values, axes, read.point)
        return told

    def _keep(
        self, values: Array, axes: Mapping[str, Sequence[Any] | None] | None, where: str
    ) -> dict[str, Any]:
        numbers = np.array(values.numpy())
        named = axes or {f"axis {n}": None for n in range(numbers.ndim)}
        kept = self._shelf.keep(numbers, named, f"{self._of}: {where}")
        self.kept.append(kept)
        return kept.told(STRONGEST if len(self.kept) <= MANY else FEW)
