"""Forwards in steps of whole layers, for what is computed between their modules."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from garcon_backend.hook_sites.sites import Pass, Visitor, visited
from garcon_backend.libraries.transformers_internals import CACHES, cache_argument


def multiplied_layer(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: dict[str, Any]
) -> Tensor:
    """Granite's hybrid layer, whose additions are multiplied.

    Parts: ``first``, what attention or Mamba adds; ``mlp.out``, what experts and the shared MLP put out together;
    ``mlp``, what is added of it.
    """
    given = {**dict(zip(("hidden_states", "attention_mask"), args, strict=False)), **kwargs}
    residual = given.pop("hidden_states")
    mask, cache = given.pop("attention_mask", None), _cache(given)
    normed = module.input_layernorm(residual)
    if module.mamba is not None:
        more = {n: v for n, v in given.items() if n not in ("use_cache", "position_embeddings")}
        mixed = module.mamba(normed, attention_mask=mask, **_given(module.mamba, cache), **more)
    else:
        cached = _given(module.self_attn, cache)
        mixed, _ = module.self_attn(hidden_states=normed, attention_mask=mask, **cached, **given)
    hidden = residual + visited(visits, "first", mixed * module.residual_multiplier)
    normed = module.post_attention_layernorm(hidden)
    if module.has_experts:
        chosen = module.block_sparse_moe(normed)
        out = chosen + module.shared_mlp(normed)
    else:
        out = module.shared_mlp(normed)
    out = visited(visits, "mlp.out", out)
    result: Tensor = hidden + visited(visits, "mlp", out * module.residual_multiplier)
    return result


def parallel_layer(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: dict[str, Any]
) -> tuple[Tensor]:
    """Falcon-H1's layer: attention and Mamba read one norm, and what each adds is multiplied.

    Parts: ``attn`` and ``mixer``, what they add.
    """
    given = dict(kwargs)
    residual = args[0] if args else given.pop("hidden_states")
    to_attention = ("attention_mask", "position_ids", "use_cache", "position_embeddings")
    alone = {name: given.pop(name) for name in to_attention if name in given}
    cache, mask = _cache(given), given.pop("mamba_attention_mask", None)
    normed = module.input_layernorm(residual)
    to_mamba = _given(module.mamba, cache)
    mixed = module.mamba(hidden_states=normed, attention_mask=mask, **to_mamba, **given)
    mixed = visited(visits, "mixer", mixed * module.ssm_out_multiplier)
    attended, _ = module.self_attn(
        hidden_states=normed * module.attention_in_multiplier,
        **_given(module.self_attn, cache),
        **alone,
        **given,
    )
    attended = visited(visits, "attn", attended * module.attn_out_multiplier)
    hidden = residual + (mixed + attended)
    return (hidden + module.feed_forward(module.pre_ff_layernorm(hidden)),)


def _cache(given: dict[str, Any]) -> Any:
    """The cache among what a layer is called with, taken out of it."""
    return next((given.pop(name) for name in CACHES if name in given), None)


def _given(module: Any, cache: Any) -> dict[str, Any]:
    """The cache by the name by which a module takes it."""
    name = cache_argument(module)
    return {} if name is None else {name: cache}
