"""What an experiment found: numbers with named axes, and what they are of.

found = experiments.composition(rmodel, "K")
found.values                            # a tensor [layer, head, layer, head]
found.axes                              # {"writer layer": (0, 1, …), "writer head": (0, 1, …), …}
found.at(**{"writer layer": 16, "writer head": 0})
found.strongest(5)                      # the five largest, with where they are
found.to_frame()                        # one row for each number
found.save("composition.npz"); experiments.load("composition.npz")
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client import display_hooks
from garcon_jupyter.errors import BadRequest

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

Label = int | str
"""What a place along an axis is called: a layer's number, a token."""

_FORMAT = "garcon experiment 1"
_MORE = "more/"


@dataclass(frozen=True, eq=False, repr=False)
class ExperimentResult:
    """What an experiment found.

    Attributes:
        experiment: its name, as it is called: ``"patch"``.
        values: float32 or float64 on the CPU, a dimension for each axis; NaN where there is no number.
        axes: the name of each dimension, in order, with what its places are called. Names differ.
        says: what a number is, with its unit and its ends: "share of the clean answer that comes back: 0 as corrupted, 1 as clean".
        facts: what it is of, as plain data (JSON): the model, the arguments, limits that hold.
        more: what belongs to it and has other axes, by name, such as the level that chance reaches.

    Raises:
        BadRequest: another number of axes than of dimensions, or of labels than of places.
    """

    experiment: str
    values: Tensor
    axes: Mapping[str, tuple[Label, ...]]
    says: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "axes", {name: tuple(places) for name, places in self.axes.items()}
        )
        sizes = [len(places) for places in self.axes.values()]
        if sizes != list(self.values.shape):
            raise BadRequest(
                f"Values of shape {[*self.values.shape]} have axes {', '.join(self.axes) or 'none'} of {sizes} places.",
                "Give each dimension a name, and each of its places a label.",
            )

    # -- numbers -----------------------------------------------------------------------------

    def at(self, **places: Label) -> Tensor:
        """The values at some places, by the labels of their axes; the other axes are left.

        Args:
            places: ``at(layer=16, head=0)``; names with spaces by ``at(**{"writer layer": 16})``.

        Raises:
            BadRequest: there is no such axis, or no such place along it.
        """
        index: list[Any] = [slice(None)] * len(self.axes)
        names = list(self.axes)
        for name, label in places.items():
            if name not in self.axes:
                raise BadRequest(f"There is no axis {name!r}.", f"There are {', '.join(names)}.")
            if label not in self.axes[name]:
                raise BadRequest(
                    f"{name!r} has no place {label!r}.", f"It has {_some(self.axes[name])}."
                )
            index[names.index(name)] = self.axes[name].index(label)
        part: Tensor = self.values[tuple(index)]
        return part

    def strongest(
        self, k: int = 10, magnitude: bool = False
    ) -> list[tuple[dict[str, Label], float]]:
        """The k largest numbers, each with where it is: ``({"layer": 16, "head": 0}, 0.18)``.

        Args:
            magnitude: the largest by size, whatever the sign.
        """
        flat = self.values.detach().flatten()
        order = (flat.abs() if magnitude else flat).nan_to_num(nan=-math.inf)
        best = order.argsort(descending=True, stable=True)[:k].tolist()
        return [(self._place(at), float(flat[at])) for at in best if not flat[at].isnan()]

    def _place(self, at: int) -> dict[str, Label]:
        """The labels of a place, counted along all axes."""
        found: dict[str, Label] = {}
        for name, labels in reversed([*self.axes.items()]):
            at, here = divmod(at, len(labels))
            found[name] = labels[here]
        return dict(reversed(found.items()))

    def to_frame(self) -> pd.DataFrame:
        """A table with a column for each axis and one, ``value``, for the numbers; a row for each number that there is.

        What is in ``more`` and has the same shape has a column as well, and so have names that ``facts["names"]`` gives its numbers.

        Raises:
            BadRequest: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise BadRequest(
                "A table is made with pandas, which is not installed.", "pip install pandas."
            ) from None
        index = pd.MultiIndex.from_product(list(self.axes.values()), names=list(self.axes))
        columns = {"value": self.values, **self.beside()}
        flat = {name: tensor.detach().flatten().numpy() for name, tensor in columns.items()}
        table = pd.DataFrame(flat, index=index).dropna(subset="value").reset_index()
        for name, words in self.facts.get("names", {}).items():
            table[f"{name} name"] = [words.get(str(number), "") for number in table[name]]
        return table

    def beside(self) -> dict[str, Tensor]:
        """What is in ``more`` for each number: of the same shape as the values."""
        same = {name: v for name, v in self.more.items() if v.shape == self.values.shape}
        return same if self.axes else {}

    # -- on disk -----------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write all of it into one file, a NumPy archive: plain arrays and one JSON text, no pickled objects."""
        import numpy as np

        about = {
            "format": _FORMAT,
            "experiment": self.experiment,
            "axes": [[name, list(labels)] for name, labels in self.axes.items()],
            "says": self.says,
            "facts": dict(self.facts),
        }
        arrays: dict[str, Any] = {"values": self.values.detach().numpy()}
        arrays |= {f"{_MORE}{name}": value.detach().numpy() for name, value in self.more.items()}
        target = Path(path)
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        with beside.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)
        beside.replace(target)
        return target

    # -- how it shows itself -----------------------------------------------------------------

    def show(self) -> Any:
        """A picture of it: heatmaps of its last two axes."""
        return display_hooks.drawn(self, "show")

    def _repr_html_(self) -> str | None:
        return display_hooks.html(self)

    def __repr__(self) -> str:
        sides = " × ".join(f"{name} {len(labels)}" for name, labels in self.axes.items())
        return (
            f"<{self.experiment}: {sides or 'one number'}{f'; {self.says}' if self.says else ''}>"
        )


def load(path: str | os.PathLike[str]) -> ExperimentResult:
    """What :meth:`ExperimentResult.save` wrote.

    Raises:
        BadRequest: there is no such file, or it is no result of an experiment.
    """
    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: torch.from_numpy(archive[name]) for name in archive if name != "about"}
            about = json.loads(str(archive["about"]))
        if about["format"] != _FORMAT:
            raise ValueError(about["format"])
        axes = {name: tuple(labels) for name, labels in about["axes"]}
        values = arrays.pop("values")
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror or error}.", _SAVED) from None
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise BadRequest(f"{path} holds no result of an experiment: {error}.", _SAVED) from None
    more = {name.removeprefix(_MORE): value for name, value in arrays.items()}
    return ExperimentResult(about["experiment"], values, axes, about["says"], about["facts"], more)


_SAVED = "Give a file that .save(path) of a result wrote."


def _some(labels: Sequence[Label]) -> str:
    """A few labels, for the words of an error."""
    told = [str(label) for label in labels]
    return ", ".join(told) if len(told) <= 12 else f"{', '.join(told[:6])}, …, {told[-1]}"
