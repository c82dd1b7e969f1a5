"""Identities, held against the values of one forward."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from garcon_jupyter.certificate.closeness import apart, tolerance
from garcon_jupyter.certificate.identities import IDENTITIES, Identity
from garcon_jupyter.certificate.values import Missing, PointValues

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Held:
    """An identity at one layer, on the text as it is.

    Attributes:
        identity: which.
        layer: of its point; None for what is in no layer.
        form: name of its form that comes nearest.
        error: how far that is off.
        allowed: how far it may be.
    """

    identity: Identity
    layer: int | None
    form: str
    error: float
    allowed: float

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
        return _error(self.identity, self.form, values.at(self.layer))


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
    """The form of an identity that comes nearest; None where none can be computed."""
    best: Held | None = None
    for forms in identity.strict_first:
        if best is not None and best.holds:
            return best
        for form in forms:
            errors = _error(identity, form, values)
            if errors is None:
                continue
            allowed = tolerance(identity.rounding_of(form), dtype)
            found = Held(identity, values.layer, form, float(errors.max()), allowed)
            if best is None or found.error < best.error:
                best = found
    return best


def _error(identity: Identity, form: str, values: PointValues) -> Tensor | None:
    import torch

    try:
        return apart(*identity.forms[form](values))
    except Missing:
        return None
    except (RuntimeError, IndexError, ValueError):  # of shapes that do not go together
        return torch.full((len(values.ids),), float("inf"), dtype=torch.float64)
