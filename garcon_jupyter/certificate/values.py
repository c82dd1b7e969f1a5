"""What a model computed on a short text, as an identity reads it: values of points, and the parameters they came from.

Everything is float64 here, so that what is told apart is the model's own rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from garcon_jupyter.points import Catalog, fill

if TYPE_CHECKING:
    from torch import Tensor

MOST_NUMBERS = 2_000_000
"""Numbers of one parameter that are read at most: of a larger one some rows, evenly spread."""


HIDDEN_SCORE = -1e30
"""What stands for −∞."""


class Missing(LookupError):
    """An identity reads a point or a parameter that this layer does not have."""


@dataclass(frozen=True)
class ParameterRows:
    """ParameterRows of a parameter.

    Attributes:
        value: float64 [row, …].
        which: numbers of the rows, int64 [row].
        whole: whether they are all.
    """

    value: Tensor
    which: Tensor
    whole: bool


class ParameterReader:
    """Parameters by name, each read once.

    Args:
        get: a parameter by name, whole or cut by an index: :meth:`garcon_jupyter.client.client.Client.get_parameter`.
        catalog: what the model has.
        seed: of the choice of rows.
    """

    def __init__(self, get: Callable[..., Tensor], catalog: Catalog, seed: int = 0) -> None:
        self._get, self._catalog, self._seed = get, catalog, seed
        self._names = set(catalog.parameters)
        self._read: dict[tuple[str, int], ParameterRows] = {}
        self.sampled: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def rows(
        self, name: str, most: int = MOST_NUMBERS, which: Tensor | None = None
    ) -> ParameterRows:
        """A parameter, or as many of its rows as `most` numbers have.

        Args:
            which: just these rows.

        Raises:
            Missing: the model has no such parameter.
        """
        if name not in self._names:
            raise Missing(name)
        if which is not None:
            return ParameterRows(self._get(name, which).double().cpu(), which, False)
        if (name, most) not in self._read:
            self._read[name, most] = self._some(name, most)
        return self._read[name, most]

    def _some(self, name: str, most: int) -> ParameterRows:
        import torch

        if self._numbers(name) <= most:
            value = self._get(name).double().cpu()
            return ParameterRows(value, torch.arange(len(value)), True)
        width = self._get(name, slice(0, 1)).numel()
        count, fitting = len(self._get(name, (slice(None), 0))), max(1, most // width)
        if count > fitting:
            self.sampled.add(name)
        generator = torch.Generator().manual_seed(self._seed)
        which = torch.randperm(count, generator=generator)[:fitting].sort().values
        return ParameterRows(self._get(name, which).double().cpu(), which, count <= fitting)

    def _numbers(self, name: str) -> int:
        """About how many numbers a parameter has."""
        spec, sizes = self._catalog.parameter(name).spec, self._catalog.sizes
        letters = "*".join(spec.dims).split("*") if spec else []
        return math.prod(sizes.get(letter, 1) for letter in letters)


@dataclass
class PointValues:
    """Values of one forward, or of one layer of it: ``at(4)["attn.q"]`` is that of ``layers.4.attn.q``.

    Attributes:
        catalog: what the model has.
        points: by name, float64 [b, p, …].
        tokens: of the points of experts, which tokens were routed to them, by name.
        parameters: reads these.
        ids: token ids, int64 [b, p].
        prefix: of names: that of the layer, or nothing.
        columns: of the logits, the tokens of the vocabulary that were kept.
    """

    catalog: Catalog
    points: Mapping[str, Tensor]
    parameters: ParameterReader
    ids: Tensor
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    columns: Tensor | None = None
    layer: int | None = None

    @property
    def prefix(self) -> str:
        """What stands before names."""
        return "" if self.layer is None else f"layers.{self.layer}."

    def at(self, layer: int | None) -> PointValues:
        """The same, of one layer; None for what is in no layer."""
        return replace(self, layer=layer)

    def has(self, template: str) -> bool:
        """Whether a point or parameter of this layer, or of none, is named by a template of the table."""
        name = self.name(template)
        if "{e}" in name:
            return any(point.startswith(name.partition("{e}")[0]) for point in self.points)
        return name in self.points or name in self.parameters

    def name(self, template: str) -> str:
        """The address that a template has in this layer."""
        return template.replace("{i}", str(self.layer))

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.points

    def __getitem__(self, name: str) -> Tensor:
        if self.prefix + name not in self.points:
            raise Missing(self.prefix + name)
        return self.points[self.prefix + name]

    def first(self, *names: str) -> Tensor:
        """The first of several points that the layer has."""
        return self[next((name for name in names if name in self), names[-1])]

    def weight(self, name: str) -> Tensor:
        """A parameter that is read whole, such as a gain."""
        return self.parameters.rows(self.prefix + name).value

    def optional(self, name: str) -> Tensor | float:
        """A parameter, or 0 where the model has none of this name: a bias."""
        return self.weight(name) if self.prefix + name in self.parameters else 0.0

    def projected(self, name: str, x: Tensor, bias: str = "", most: int = MOST_NUMBERS) -> Linear:
        """What a projection makes of x [b, p, in], on the rows of it that are read."""
        rows = self.parameters.rows(self.prefix + name, most)
        added = self.prefix + (bias or f"{name.removesuffix('.weight')}.bias")
        out = x @ rows.value.T
        if added in self.parameters:
            out = out + self.parameters.rows(added).value[rows.which]
        return Linear(out, rows.which, rows.whole)

    def last_layer(self, name: str) -> Tensor:
        """A value of the last layer."""
        return self.at(self.catalog.n_layers - 1)[name]

    def experts(self, name: str) -> dict[int, tuple[Tensor, Tensor]]:
        """(neurons [n, M], which tokens they are of, [n]) of each expert that some token was routed to."""
        found = {}
        for expert in range(self.catalog.n_experts):
            address = fill(f"{self.prefix}{name}", expert=expert)
            if address in self.points and len(self.points[address]):
                found[expert] = self.points[address], self.tokens[address]
        return found


@dataclass(frozen=True)
class Linear:
    """ParameterRows of what a projection puts out: [b, p, row], which rows they are, and whether they are all."""

    out: Tensor
    which: Tensor
    whole: bool

    def of(self, value: Tensor) -> Tensor:
        """The same rows of a value, whose heads are laid side by side; where the projection has too few, all of it."""
        flat = value.flatten(2)
        few = (
            len(self.which) < flat.shape[-1]
            if self.whole
            else int(self.which.max()) >= flat.shape[-1]
        )
        return flat if few else flat[..., self.which]


def as_double(value: Any) -> Tensor:
    """A value that was fetched, ready to be computed with: −∞, a mask of scores, is a number as most masks are."""
    found: Tensor = value.double().cpu()
    return found.masked_fill(found == float("-inf"), HIDDEN_SCORE)
