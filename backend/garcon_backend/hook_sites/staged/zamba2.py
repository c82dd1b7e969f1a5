"""Forwards in steps of what layers of Zamba2 share: each adds a narrow projection of its own to what is shared."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from garcon_backend.hook_sites.sites import Pass, Visitor, visited
from garcon_backend.libraries.transformers_internals import (
    ALL_ATTENTION_FUNCTIONS,
    CACHES,
    attention_of,
)


def shared_attention(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """Zamba2's attention, whose queries, keys and values are those of shared projections and of the layer's own.

    Parts: ``q``, ``k`` and ``v`` [b, p, heads, d], before rotary positions, if there are any.
    """
    given = {**dict(zip(("hidden_states", "layer_idx", "attention_mask"), args, strict=False))}
    given |= kwargs
    hidden, layer = given.pop("hidden_states"), given.pop("layer_idx")
    mask, turned = given.pop("attention_mask", None), given.pop("position_embeddings", None)
    cache = next((given.pop(name) for name in CACHES if name in given), None)
    q, k, v = (
        visited(visits, name, _projected(module, name, hidden, layer)).transpose(1, 2)
        for name in "qkv"
    )
    own = sys.modules[type(module).__module__]
    if module.config.use_mem_rope:
        q, k = own.apply_rotary_pos_emb(q, k, *turned)
    if cache is not None:
        k, v = cache.update(k, v, layer)
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(
        attention_of(module.config) or "eager", own.eager_attention_forward
    )
    dropout = module.attention_dropout if module.training else 0.0
    mixed, pattern = attend(module, q, k, v, mask, dropout=dropout, scaling=module.scaling, **given)
    return module.o_proj(mixed.flatten(2).contiguous()), pattern


def _projected(module: Any, name: str, hidden: Tensor, layer: int) -> Tensor:
    projected: Tensor = getattr(module, f"{name}_proj")(hidden)
    if module.config.use_shared_attention_adapter:
        adds = getattr(module, f"linear_{name}_adapter_list")[module.layer_dic[layer]]
        projected = projected + adds(hidden)
    return torch.unflatten(projected, -1, (-1, module.head_dim))


def shared_mlp(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: dict[str, Any]
) -> Tensor:
    """Zamba2's MLP, whose gates and up projections are shared ones and the layer's own.

    Parts: ``pre_activation`` and ``pre_linear``.
    """
    given = {**dict(zip(("hidden_state", "layer_idx"), args, strict=False)), **kwargs}
    hidden, layer = given["hidden_state"], given["layer_idx"]
    adds = module.gate_up_proj_adapter_list[module.layer_dic[layer]]
    gate, up = (module.gate_up_proj(hidden) + adds(hidden)).chunk(2, -1)
    gate, up = visited(visits, "pre_activation", gate), visited(visits, "pre_linear", up)
    out: Tensor = module.down_proj(module.act_fn(gate) * up)
    return out
