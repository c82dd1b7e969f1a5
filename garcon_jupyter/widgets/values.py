"""The plain numbers of a picture, with names for their axes.

Every picture has them as ``.values``: what was drawn can be computed with, saved, or drawn by another library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from garcon_jupyter.errors import BadRequest


@dataclass(frozen=True, eq=False, repr=False)
class Values:
    """An array whose axes have names, and whose places may have labels.

    It is indexed as its array is, ``values[3, -1]``, or by name, ``values.at(layer=3, position=-1)``; NumPy takes
    it for an array.

    Attributes:
        array: the numbers, numpy or torch. NaN where there is none (yet).
        axes: a name for each axis, such as ("layer", "position").
        labels: for some of the axes, a string for each place along it: of a position, its token.
        name: what the numbers are.

    Raises:
        BadRequest: another number of names than of axes, one name twice, labels of no axis or of another length.
    """

    array: Any
    axes: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        axes = tuple(self.axes)
        labels = {axis: tuple(map(str, words)) for axis, words in self.labels.items()}
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "labels", labels)
        if len(axes) != len(self.shape) or len(set(axes)) != len(axes):
            raise BadRequest(
                f"An array of shape {self.shape} has axes {axes}.",
                "Give each axis a name of its own.",
            )
        for axis, words in labels.items():
            if len(words) != self.shape[self._place(axis)]:
                raise BadRequest(
                    f"There are {len(words)} labels for {self.shape[self._place(axis)]} places of {axis!r}.",
                    "Give one for each.",
                )

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(self.array.shape)

    def at(self, **places: int | str | slice) -> Any:
        """The values at places of named axes: a number, a label, or a slice for each.

        Returns:
            A number where every axis is given one place, else :class:`Values` of the axes that are left.

        Raises:
            BadRequest: there is no such axis, no such place along it, or no single place with that label.
        """
        chosen: list[int | slice] = [slice(None)] * len(self.axes)
        for axis, place in places.items():
            chosen[self._place(axis)] = self._number(axis, place)
        part = self.array[tuple(chosen)]
        left = {a: c for a, c in zip(self.axes, chosen, strict=True) if isinstance(c, slice)}
        if not left:
            return part.item()
        labels = {axis: self.labels[axis][cut] for axis, cut in left.items() if axis in self.labels}
        return Values(part, tuple(left), labels, self.name)

    def _place(self, axis: str) -> int:
        if axis not in self.axes:
            raise BadRequest(f"There is no axis {axis!r}.", f"There are {', '.join(self.axes)}.")
        return self.axes.index(axis)

    def _number(self, axis: str, place: Any) -> int | slice:
        """A place as the array takes it."""
        if isinstance(place, slice):
            return place
        length = self.shape[self._place(axis)]
        if isinstance(place, str):
            found = [at for at, word in enumerate(self.labels.get(axis, ())) if word == place]
            if len(found) == 1:
                return found[0]
            said = f"{len(found)} places" if found else "no place"
            raise BadRequest(f"{axis!r} has {said} labelled {place!r}.", "Give its number.")
        if not hasattr(place, "__index__") or not -length <= place < length:
            raise BadRequest(
                f"{axis!r} has no place {place!r}.", f"It goes from 0 to {length - 1}."
            )
        return int(place)

    def __getitem__(self, index: Any) -> Any:
        return self.array[index]

    def __len__(self) -> int:
        return len(self.array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy as np

        array = self.array
        if hasattr(array, "detach"):  # a torch tensor; NumPy has no bfloat16
            array = array.detach().cpu()
            array = array.float() if array.is_floating_point() and array.itemsize < 4 else array
        return np.array(array, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        sides = " × ".join(f"{axis} {n}" for axis, n in zip(self.axes, self.shape, strict=True))
        return f"<Values {f'{self.name}: ' if self.name else ''}{sides}>"
