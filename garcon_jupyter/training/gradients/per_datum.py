"""The gradients of one batch, datum by datum, for every parameter.

:meth:`PerDatum.gradient` is the gradient itself; norms, dot products and projections come from the factors, without it.
The gradient of a datum is its share of the gradient of the batch's loss: with a mean over tokens, each datum weighs as
many tokens as it has. Over all data they sum to the batch's gradient, before clipping.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from garcon_jupyter.errors import UnknownParameter
from garcon_jupyter.training.gradients.sites import Site, between, crossed

if TYPE_CHECKING:
    from torch import Tensor


class PerDatum:
    """The gradients of one batch.

    Attributes:
        data: ids, in the order of the first dimension of everything here.
        tokens: the tokens of each datum.
        sites: of each parameter, by its first name in the model.
    """

    def __init__(
        self,
        data: list[int],
        tokens: list[list[int]],
        sites: Mapping[str, list[Site]],
        aliases: Mapping[str, str],
    ) -> None:
        self.data, self.tokens, self.sites, self._aliases = data, tokens, dict(sites), aliases

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters that are covered."""
        return list(self.sites)

    def scaled(self, by: float) -> PerDatum:
        """The same gradients, times a number."""
        sites = {name: [each.scaled(by) for each in found] for name, found in self.sites.items()}
        return PerDatum(self.data, self.tokens, sites, self._aliases)

    def _of(self, parameter: str) -> list[Site]:
        name = self._aliases.get(parameter, parameter)
        if name not in self.sites:
            raise UnknownParameter.among("recorded parameter", parameter, self.sites)
        return self.sites[name]

    def gradient(self, parameter: str) -> Tensor:
        """The gradient of each datum, [data, *shape].

        Raises:
            UnknownParameter: there is none of this name, or it is not recorded.
        """
        first, *others = self._of(parameter)
        found = first.gradient()
        for site in others:
            found = found + site.gradient()
        return found

    def gradient_of(self, parameter: str, at: int) -> Tensor:
        """The gradient of the datum at a place of the batch, in the parameter's shape."""
        first, *others = self._of(parameter)
        found = first.gradient_of(at)
        for site in others:
            found = found + site.gradient_of(at)
        return found

    def squares(self, parameter: str) -> Tensor:
        """Squared norms, [data], by the ghost identity where that is less work than by gradients.

        ‖Σ b aᵀ‖² = Σ over pairs of places (a·a′)(b·b′); of a parameter that is used at several places, with the cross terms.
        """
        sites = self._of(parameter)
        found = sites[0].square()
        for number, site in enumerate(sites):
            if number:
                found = found + site.square()
                for other in sites[:number]:
                    found = found + 2 * crossed(other, site)
        return found.clamp(min=0)

    def dots(self, parameters: Iterable[str] | None = None) -> Tensor:
        """Dot products of the gradients of all pairs of data, [data, data], over some parameters, or all."""
        import torch

        names = self.parameters if parameters is None else parameters
        found: list[Tensor] = []
        for name in names:
            sites = self._of(name)
            found += [between(one, two) for one in sites for two in sites]
        return torch.stack(found).sum(0)

    def squares_of(self, parameters: Iterable[str] | None = None) -> Tensor:
        """Squared norms over some parameters, or all, [data]."""
        import torch

        names = self.parameters if parameters is None else parameters
        return torch.stack([self.squares(name) for name in names]).sum(0)

    def dots_with(self, other: PerDatum, parameters: Iterable[str] | None = None) -> Tensor:
        """Dot products with the gradients of another batch, [data, data of the other], over some parameters, or all."""
        import torch

        names = self.parameters if parameters is None else parameters
        found: list[Tensor] = []
        for name in names:
            others = other._of(name)
            found += [between(one, two) for one in self._of(name) for two in others]
        return torch.stack(found).sum(0)

    def projection(self, parameter: str, left: Tensor, right: Tensor) -> Tensor:
        """Two-sided projection of a matrix, P G Qᵀ, [data, k, k], for left [k, rows] and right [k, columns].

        Σ over places of (P b)(Q a)ᵀ: the dot product of two data's projections estimates that of their gradients, without bias, where the entries of
        P and Q are independent, with mean 0 and variance 1 / k.
        """
        first, *others = self._of(parameter)
        left, right = left.to(first.factor), right.to(first.factor)
        found = first.left(left) @ right.T
        for site in others:
            found = found + site.left(left) @ right.T
        return found
