"""Identities, held against the values of one forward."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from garcon_jupyter.certificate.closeness import apart, tolerance
from garcon_jupyter.certificate.identities import IDENTITIES
from garcon_jupyter.certificate.identity import Identity
from garcon_jupyter.certificate.values import Missing, PointValues

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Held:
    """An identity at one layer, on the text as it is.

    Attributes:
        identity: which.
        layer: of its point; None for what is in no layer.
        form: name of the form in which it holds, or comes nearest to it.
        error: how far that is off.
        allowed: how far it may be.
        others: further forms, of those that fit numbers, that hold as well: an edit may tell which one it is.
    """

    identity: Identity
    layer: int | None
    form: str
    error: float
    allowed: float
    others: tuple[str, ...] = ()

    @property
    def point(self) -> str:
        """Address of its point, of experts the template."""
        return self.identity.of.replace("{i}", str(self.layer))

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.error <= self.allowed

    @property
    def says(self) -> str:
        """What holds, and in which form."""
        return f"{self.identity.says} ({self.form})" if self.form else self.identity.says

    def errors(self, values: PointValues) -> Tensor | None:
        """How far it is off in each text of a batch, [b]; None where the values of another layer are missing."""
        import torch

        here = values.at(self.layer)
        found = [_error(self.identity, form, here) for form in (self.form, *self.others)]
        there = [error for error in found if error is not None]
        return torch.stack(there).amin(0) if there else None


def held(values: PointValues, layers: Iterable[int], dtype: str) -> Iterator[Held]:
    """Every identity of some layers, and of what is in none, of which the values have what it needs.

    Args:
        dtype: of the model, by name.
    """
    chosen = [*layers]
    for identity in IDENTITIES:
        for layer in chosen if "{i}" in identity.of else [None]:
            here = values.at(layer)
            if not here.has(identity.of):
                continue
            found = nearest(identity, here, dtype)
            if found is not None:
                yield found


def nearest(identity: Identity, values: PointValues, dtype: str) -> Held | None:
    """The form of an identity that holds; of those that fit numbers, or where none holds, the one that comes nearest.

    Where several hold, the first that the table names: they differ by rounding, until an edit comes between them (a stream
    without its middle is a sum as well), so which of them is nearer would tell nothing, and depend on the machine.

    Returns:
        None where none can be computed.
    """
    strict, loose = identity.strict_first
    found = []
    for one in _tried(identity, strict, values, dtype):
        if one.holds:
            return one
        found.append(one)
    found += _tried(identity, loose, values, dtype)
    if not found:
        return None
    best = min(found, key=_off)
    others = tuple(one.form for one in found if one.holds and one is not best)
    return replace(best, others=others)


def _off(one: Held) -> float:
    return one.error


def _tried(
    identity: Identity, forms: Iterable[str], values: PointValues, dtype: str
) -> Iterator[Held]:
    """Forms of an identity that can be computed."""
    for form in forms:
        errors = _error(identity, form, values)
        if errors is not None:
            allowed = tolerance(identity.rounding_of(form), dtype)
            yield Held(identity, values.layer, form, float(errors.max()), allowed)


def _error(identity: Identity, form: str, values: PointValues) -> Tensor | None:
    import torch

    try:
        return apart(*identity.forms[form](values))
    except Missing:
        return None
    except (RuntimeError, IndexError, ValueError):  # of shapes that do not go together
        return torch.full((len(values.ids),), float("inf"), dtype=torch.float64)
