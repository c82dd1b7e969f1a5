"""Norms in steps: the denominator, and what is normalised before its gain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from garcon_backend.hook_sites.sites import Pass, StagedForward, Visitor, visited


def _eps(module: Any) -> float:
    found: float = next(
        getattr(module, n) for n in ("variance_epsilon", "eps") if hasattr(module, n)
    )
    return found


def rms_norm(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """Llama's RMSNorm (Zhang and Sennrich 2019): normalised in float32, gain in the model's dtype."""
    (x,) = args
    wide = x.float()
    scale = visited(visits, "scale", (wide.pow(2).mean(-1, keepdim=True) + _eps(module)).sqrt())
    normalized = visited(visits, "normalized", (wide / scale).to(x.dtype))
    out: Tensor = module.weight * normalized
    return out


def gemma_rms_norm(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """Gemma's RMSNorm: the gain is 1 + weight, and applied in float32."""
    return _wide_rms_norm(module, visits, args[0], 1.0 + module.weight.float())


def olmo_rms_norm(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """OLMo 2's RMSNorm: Llama's, with the gain applied in float32."""
    return _wide_rms_norm(module, visits, args[0], module.weight)


def bare_rms_norm(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """NanoChat's RMSNorm, which has no gain: ``normalized`` is what it puts out."""
    return _wide_rms_norm(module, visits, args[0], 1.0)


def _wide_rms_norm(
    module: Any, visits: dict[str, Visitor], x: Tensor, gain: Tensor | float
) -> Tensor:
    wide = x.float()
    scale = visited(visits, "scale", (wide.pow(2).mean(-1, keepdim=True) + _eps(module)).sqrt())
    normalized = visited(visits, "normalized", wide / scale)
    return (normalized * gain).to(x.dtype)


def layer_norm(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """LayerNorm (Ba et al. 2016): ``scale`` is the standard deviation with its epsilon.

    As torch's own does, it computes in float32 at least, and rounds only what it puts out.
    """
    return _layer_norm(module, visits, args[0], module.weight)


def layer_norm_of_flat(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """The same over flat tokens [b·p, D]; its parts are [b, p, …]."""
    x = args[0].unflatten(0, the_pass.batch)
    return _layer_norm(module, visits, x, module.weight).flatten(0, 1)


def layer_norm_1p(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """Nemotron's LayerNorm: the gain is 1 + weight."""
    return _layer_norm(module, visits, args[0], module.weight + 1.0)


def bare_layer_norm(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """OLMo's LayerNorm, which has neither gain nor bias: ``normalized`` is what it puts out."""
    return _layer_norm(module, visits, args[0], 1.0, eps=1e-5)  # which it does not keep


def _layer_norm(
    module: Any,
    visits: dict[str, Visitor],
    x: Tensor,
    gain: Tensor | float,
    eps: float | None = None,
) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    centred = wide - wide.mean(-1, keepdim=True)
    variance = centred.pow(2).mean(-1, keepdim=True)
    eps = _eps(module) if eps is None else eps
    scale = visited(visits, "scale", (variance + eps).sqrt())
    normalized = visited(visits, "normalized", centred / scale)
    out, bias = normalized * gain, getattr(module, "bias", None)
    shifted: Tensor = out if bias is None else out + bias
    return shifted.to(x.dtype)


CENTRED: frozenset[StagedForward] = frozenset(
    {layer_norm, layer_norm_of_flat, layer_norm_1p, bare_layer_norm}
)
"""Norms that take the mean away before they divide: what a direction writes along all ones, they do not read."""
