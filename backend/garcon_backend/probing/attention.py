"""The one attention function that every family runs through.

transformers lets an attention implementation be registered by name; models loaded with
``attn_implementation="garcon"`` call this one. It hands over to the fast kernel unless the scores or
the pattern of that very layer are probed, in which case it computes them in steps:
``softmax(softcap(q·kᵀ·scale) + mask)·v`` (Vaswani et al. 2017; the soft cap is Gemma 2's).

Where nothing is padded and no window cuts the past short, the mask is no tensor at all: the fast kernel is
told that attention is causal, and skips half of the work.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from garcon_backend.probing.places import visited

NAME = "garcon"


def register() -> None:
    """Make the function known to transformers; harmless when called twice."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, additive_mask)


def additive_mask(
    *, dtype: torch.dtype = torch.float32, device: Any = "cpu", **kwargs: Any
) -> Tensor | None:
    """What is added to scores [b, H, p_q, p_k]: 0 where a query sees a key, else the lowest number.

    None where a query sees just what came before it.
    """
    seen = sdpa_mask(device=device, **kwargs)
    if seen is None:
        return None
    return torch.where(seen, torch.zeros((), dtype=dtype, device=device), torch.finfo(dtype).min)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention over query [b, H, p_q, d] and key, value [b, K, p_k, d].

    Returns:
        The mix of values [b, p_q, H, d], and the pattern [b, H, p_q, p_k] where it was probed.
    """
    taps = module.__dict__.get("_garcon_attention", {})
    if taps:
        query = _rotated(taps, "q_rot", query)
        if not taps["run"].caching:
            key = _rotated(taps, "k_rot", key)
    if softcap is None and not ("scores" in taps or "pattern" in taps):
        fast = ALL_ATTENTION_FUNCTIONS["sdpa"]
        output, _ = fast(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling
        )
        return output, None
    return _in_steps(taps, query, key, value, attention_mask, scaling, softcap)


def _rotated(taps: dict[str, Any], part: str, tensor: Tensor) -> Tensor:
    if part not in taps:
        return tensor
    return visited(taps, part, tensor.transpose(1, 2)).transpose(1, 2)


def _in_steps(
    taps: dict[str, Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * (scaling or query.shape[-1] ** -0.5)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores + (_causal(scores) if mask is None else mask[..., : key.shape[2]])
    scores = visited(taps, "scores", scores)
    pattern = torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype)
    pattern = visited(taps, "pattern", pattern)
    return (pattern @ value).transpose(1, 2).contiguous(), pattern


def _causal(scores: Tensor) -> Tensor:
    """The mask that is no tensor, as one: [p_q, p_k]. A single query sees all keys."""
    queries, keys = scores.shape[-2:]
    lowest = torch.full(
        (queries, keys), torch.finfo(scores.dtype).min, dtype=scores.dtype, device=scores.device
    )
    return lowest.triu(keys if queries == 1 else 1)


class VisitedCache(DynamicCache):
    """A key-value cache through which probed keys pass before they are kept.

    So an edit of ``k_rot`` during generation reaches every later step, as an edit of ``k`` or ``v``
    does by itself.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(config=model.config)
        self._attentions: dict[Any, nn.Module] = {
            module.layer_idx: module
            for module in model.modules()
            if isinstance(getattr(module, "layer_idx", None), int) and hasattr(module, "scaling")
        }

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        module = self._attentions.get(layer_idx)
        taps = module.__dict__.get("_garcon_attention", {}) if module is not None else {}
        return super().update(
            _rotated(taps, "k_rot", key_states), value_states, layer_idx, *args, **kwargs
        )
