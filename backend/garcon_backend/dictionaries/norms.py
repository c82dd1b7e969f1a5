"""Activations as a dictionary reads them, and what it writes, scaled back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from garcon_jupyter.dictionaries import InputNorm
from garcon_jupyter.dictionaries.form import STANDARD_EPS


def scaled(x: Tensor, norm: InputNorm) -> Tensor:
    """What a dictionary reads of `x` [..., D], or [..., inputs, D]."""
    match norm.kind:
        case "scale":
            return x * scales(norm, x)
        case "length":
            factor: Tensor = x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True)
            return x * factor
        case "standard":
            mean, deviation = _moments(x)
            return (x - mean) / (deviation + STANDARD_EPS)
    return x


def scaling_back(x: Tensor | None, norm: InputNorm) -> Callable[[Tensor], Tensor]:
    """What turns the output of a dictionary that read `x` into activations.

    The deviation is multiplied without what was added to it when it was divided by, as SAELens and OpenAI do.
    """
    if norm.kind == "scale":
        return lambda y: y / scales(norm, y)
    if norm.kind == "none":
        return lambda y: y
    assert x is not None
    if norm.kind == "length":
        factor = x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True)
        return lambda y: y / factor
    mean, deviation = _moments(x)
    return lambda y: y * deviation + mean


def scaling_change(x: Tensor | None, norm: InputNorm) -> Callable[[Tensor], Tensor]:
    """As :func:`scaling_back`, of a change of what a dictionary writes: a mean that is added back stays as it is."""
    if norm.kind != "standard":
        return scaling_back(x, norm)
    assert x is not None
    _, deviation = _moments(x)
    return lambda y: y * deviation


def scales(norm: InputNorm, like: Tensor) -> Tensor:
    """The factors of a norm, one number or one for each input [inputs, 1]."""
    made = torch.tensor(norm.scale, dtype=like.dtype, device=like.device)
    return made if len(norm.scale) == 1 else made[:, None]


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation of each token."""
    return x.mean(dim=-1, keepdim=True), x.std(dim=-1, keepdim=True, correction=1)
