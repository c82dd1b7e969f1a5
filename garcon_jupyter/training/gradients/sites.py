"""The gradient of a parameter at one place where it is used, as what it is made of.

A site holds factors, per datum, and gives from them without loss: the gradient itself, its squared norm, dot products
between data, and two-sided random projections. L is the number of places of the longest datum; places beyond a shorter one's end are zero.

A parameter that is used at several places, such as a tied embedding, has several sites: its gradient is their sum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Site(ABC):
    """The gradient of one parameter at one place of use."""

    @property
    @abstractmethod
    def factor(self) -> Tensor:
        """One of the tensors that it holds, whose type and device are those of all."""

    @abstractmethod
    def gradient(self) -> Tensor:
        """[data, *shape of the parameter]."""

    @abstractmethod
    def gradient_of(self, datum: int) -> Tensor:
        """The gradient of one datum, in the parameter's shape."""

    @abstractmethod
    def left(self, vectors: Tensor) -> Tensor:
        """Along the first dimension of a matrix: [data, k, columns] for vectors [k, rows]."""

    @abstractmethod
    def square(self) -> Tensor:
        """Squared norms, [data]."""

    @abstractmethod
    def scaled(self, by: float) -> Site:
        """The same, times a number."""


@dataclass(frozen=True, eq=False)
class OuterSite(Site):
    """A matrix product: the gradient is the sum over places of outer products of output gradient and input.

    Attributes:
        inputs: a, [data, L, inputs].
        outputs: b, the gradient of the output, [data, L, outputs].
        transposed: whether the parameter is stored as [inputs, outputs] (Conv1D of GPT-2).
    """

    inputs: Tensor
    outputs: Tensor
    transposed: bool = False

    @property
    def factor(self) -> Tensor:
        return self.outputs

    @property
    def rows(self) -> Tensor:
        """The factor along the parameter's first dimension, [data, L, rows]."""
        return self.inputs if self.transposed else self.outputs

    @property
    def columns(self) -> Tensor:
        """The factor along its second, [data, L, columns]."""
        return self.outputs if self.transposed else self.inputs

    def gradient(self) -> Tensor:
        return self.rows.transpose(1, 2) @ self.columns

    def gradient_of(self, datum: int) -> Tensor:
        return self.rows[datum].T @ self.columns[datum]

    def left(self, vectors: Tensor) -> Tensor:
        return (self.rows @ vectors.T).transpose(1, 2) @ self.columns

    def scaled(self, by: float) -> OuterSite:
        return replace(self, outputs=self.outputs * by)

    def square(self) -> Tensor:
        if self.inputs.shape[1] ** 2 * (self.inputs.shape[2] + self.outputs.shape[2]) > (
            self.inputs.shape[1] * self.inputs.shape[2] * self.outputs.shape[2]
        ):
            return self.gradient().flatten(1).square().sum(1)
        one = self.inputs @ self.inputs.transpose(1, 2)
        two = self.outputs @ self.outputs.transpose(1, 2)
        return (one * two).sum((1, 2))


@dataclass(frozen=True, eq=False)
class LookupSite(Site):
    """A table of rows, of which each place takes one: the gradient of a row is the sum of its places'.

    Attributes:
        tokens: which row each place took, int64 [data, L].
        outputs: the gradient of the output, [data, L, columns]; zero where it does not count.
        count: the number of rows.
    """

    tokens: Tensor
    outputs: Tensor
    count: int

    @property
    def factor(self) -> Tensor:
        return self.outputs

    def gradient(self) -> Tensor:
        found = self.outputs.new_zeros(len(self.tokens), self.count, self.outputs.shape[2])
        index = self.tokens[:, :, None].expand_as(self.outputs)
        return found.scatter_add_(1, index, self.outputs)

    def gradient_of(self, datum: int) -> Tensor:
        found = self.outputs.new_zeros(self.count, self.outputs.shape[2])
        return found.index_add_(0, self.tokens[datum], self.outputs[datum])

    def left(self, vectors: Tensor) -> Tensor:
        taken = vectors.T[self.tokens]  # [data, L, k]
        return taken.transpose(1, 2) @ self.outputs

    def scaled(self, by: float) -> LookupSite:
        return replace(self, outputs=self.outputs * by)

    def square(self) -> Tensor:
        same = self.tokens[:, :, None] == self.tokens[:, None, :]
        return (self.outputs @ self.outputs.transpose(1, 2) * same).sum((1, 2))


@dataclass(frozen=True, eq=False)
class DenseSite(Site):
    """A gradient that is kept as it is: of a bias, of a gain, of a module that was run again.

    Attributes:
        values: [data, *shape of the parameter].
    """

    values: Tensor

    @property
    def factor(self) -> Tensor:
        return self.values

    def gradient(self) -> Tensor:
        return self.values

    def gradient_of(self, datum: int) -> Tensor:
        return self.values[datum]

    def left(self, vectors: Tensor) -> Tensor:
        return vectors @ self.values.flatten(2) if self.values.dim() > 2 else vectors @ self.values

    def scaled(self, by: float) -> DenseSite:
        return replace(self, values=self.values * by)

    def square(self) -> Tensor:
        return self.values.flatten(1).square().sum(1)


def crossed(one: Site, two: Site) -> Tensor:
    """Dot products of two sites of one parameter, of each datum with itself, [data].

    The ghost identity with a cross term: for a tied embedding, Σ over places t of the table and s of the product of
    bᵤ[s, x_t] · (a[s] · b_t).
    """
    if isinstance(one, LookupSite) and isinstance(two, OuterSite):
        one, two = two, one
    if isinstance(one, OuterSite) and isinstance(two, LookupSite):
        places = two.tokens[:, None, :].expand(-1, one.rows.shape[1], -1)
        taken = one.rows.gather(2, places)  # [data, L of one, L of two]
        return (taken * (one.columns @ two.outputs.transpose(1, 2))).sum((1, 2))
    if (
        isinstance(one, OuterSite)
        and isinstance(two, OuterSite)
        and one.rows.shape[2] == two.rows.shape[2]
    ):
        rows = one.rows @ two.rows.transpose(1, 2)
        return (rows * (one.columns @ two.columns.transpose(1, 2))).sum((1, 2))
    if isinstance(one, LookupSite) and isinstance(two, LookupSite):
        same = one.tokens[:, :, None] == two.tokens[:, None, :]
        return (one.outputs @ two.outputs.transpose(1, 2) * same).sum((1, 2))
    return (one.gradient() * two.gradient()).flatten(1).sum(1)


def between(one: Site, two: Site) -> Tensor:
    """Dot products between all data of two sites of one parameter, [data, data]: by factors where that is less work
    than by gradients."""
    found = _between_by_factors(one, two)
    if found is not None:
        return found
    return one.gradient().flatten(1) @ two.gradient().flatten(1).T


def _between_by_factors(one: Site, two: Site) -> Tensor | None:
    """The same where both sites have factors; None where gradients are less work, or there are no factors."""
    if isinstance(one, LookupSite) and isinstance(two, OuterSite):
        swapped = _between_by_factors(two, one)
        return None if swapped is None else swapped.T
    if isinstance(one, OuterSite) and isinstance(two, LookupSite):
        data, places = two.tokens.shape
        taken = one.rows[:, :, two.tokens.reshape(-1)]  # [data of one, L of one, data of two · L]
        by = one.columns @ two.outputs.reshape(data * places, -1).T
        return (taken * by).sum(1).view(len(taken), data, places).sum(2)
    if isinstance(one, LookupSite) and isinstance(two, LookupSite):
        (i, t), (j, s) = one.tokens.shape, two.tokens.shape
        dots = one.outputs.reshape(i * t, -1) @ two.outputs.reshape(j * s, -1).T
        dots = dots * (one.tokens.reshape(-1, 1) == two.tokens.reshape(1, -1))
        return dots.view(i, t, j, s).sum((1, 3))
    if isinstance(one, OuterSite) and isinstance(two, OuterSite):
        (i, t, rows), (j, s, columns) = one.rows.shape, (*two.columns.shape,)
        if i * t * s * (rows + columns) > (t + i) * rows * columns:
            return None
        left = one.rows.reshape(i * t, -1) @ two.rows.reshape(j * s, -1).T
        right = one.columns.reshape(i * t, -1) @ two.columns.reshape(j * s, -1).T
        return (left * right).view(i, t, j, s).sum((1, 3))
    return None
