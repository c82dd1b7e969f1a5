"""How far a value may be from what an identity makes of others, by the model's dtype.

A model rounds what it computes to its dtype, whose unit roundoff u is 2⁻²⁴ (float32), 2⁻¹¹ (float16) or 2⁻⁹ (bfloat16)
(Higham 2002, chapter 2). So an identity holds up to a few u: of a sum, relative to its largest part; of a product, relative to
the result, and with what adding many products up in float32 costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-9}
"""Unit roundoff by dtype."""

ADDING_UP = 5e-6
"""What float32 makes of a long sum, relative to it."""

FLOOR = 1e-3
"""Of the largest token's norm: what is smaller than that is compared as if it were that large."""


def tolerance(rounding: str, dtype: str) -> float:
    """What an identity's error may be.

    Args:
        rounding: "sum" where a value is others added up, "product" where it is computed from them, "deep" where two
            passes of the whole model are compared.
        dtype: of the model, by name; one that is not known is taken for bfloat16.
    """
    u = ROUNDOFF.get(dtype, ROUNDOFF["bfloat16"])
    return {"sum": 8 * u + 1e-7, "product": 16 * u + ADDING_UP, "deep": 64 * u + 1e-3}[rounding]


def is_rough(dtype: str) -> bool:
    """Whether a dtype has too few digits for a finite difference through all layers."""
    return ROUNDOFF.get(dtype, 1.0) > ROUNDOFF["float32"]


def slope_tolerance(dtype: str) -> float:
    """How far a finite difference may be from what the gradient says, relative to that."""
    u = ROUNDOFF.get(dtype, ROUNDOFF["bfloat16"])
    return 0.002 + 128 * u


def loss_noise(logits: Tensor, dtype: str) -> float:
    """How much of a loss, logits [1, p, V] weighted by numbers of variance one, is rounding.

    Each logit is off by some u of itself, at random.
    """
    u = ROUNDOFF.get(dtype, ROUNDOFF["bfloat16"])
    return float((2 if is_rough(dtype) else 20) * u * logits.double().norm())


def apart(given: Tensor, computed: Tensor, scale: Tensor | None = None) -> Tensor:
    """How far two values [b, p, …] are apart, for each text: [b].

    At each token the norm of the difference, relative to the norm of `computed` there; the largest over tokens.

    Args:
        scale: what it is relative to, [b, p], where that is not `computed` itself.

    Returns:
        Infinite where shapes differ, or where one has numbers that the other does not.
    """
    import torch

    if given.shape != computed.shape:
        return torch.full((len(given),), float("inf"), dtype=torch.float64)
    difference, size = _norms(given - computed), _norms(computed)
    size = size if scale is None else torch.maximum(size, scale)
    floor = FLOOR * size.amax() if size.numel() else size
    relative: Tensor = difference / size.clamp(min=floor).clamp(min=1e-300)
    worst: Tensor = relative.nan_to_num(nan=float("inf"))
    return worst.flatten(1).amax(1)


def _norms(value: Tensor) -> Tensor:
    """Euclidean norm at each token, [b, p]."""
    found: Tensor = value.double().flatten(2).norm(dim=2)
    return found


def norms(*values: Tensor) -> Tensor:
    """The largest norm of several values at each token, [b, p]."""
    import torch

    return torch.stack([_norms(value) for value in values]).amax(0)
