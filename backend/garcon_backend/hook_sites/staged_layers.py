"""Forwards in steps of whole layers, for what is computed between their modules."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from garcon_backend.hook_sites.sites import Pass, Visitor, visited


def multiplied_layer(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: dict[str, Any]
) -> Tensor:
    """Granite's hybrid layer, whose additions are multiplied.

    Parts: ``first``, what attention or Mamba adds; ``mlp.out``, what experts and the shared MLP put out together;
    ``mlp``, what is added of it.
    """
    given = {**dict(zip(("hidden_states", "attention_mask"), args, strict=False)), **kwargs}
    residual = given.pop("hidden_states")
    mask, cache = given.pop("attention_mask", None), given.pop("past_key_values", None)
    normed = module.input_layernorm(residual)
    if module.mamba is not None:
        more = {n: v for n, v in given.items() if n not in ("use_cache", "position_embeddings")}
        mixed = module.mamba(normed, cache_params=cache, attention_mask=mask, **more)
    else:
        mixed, _ = module.self_attn(
            hidden_states=normed, attention_mask=mask, past_key_values=cache, **given
        )
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
    cache, mask = given.pop("past_key_values", None), given.pop("mamba_attention_mask", None)
    normed = module.input_layernorm(residual)
    mixed = module.mamba(hidden_states=normed, cache_params=cache, attention_mask=mask, **given)
    mixed = visited(visits, "mixer", mixed * module.ssm_out_multiplier)
    attended, _ = module.self_attn(
        hidden_states=normed * module.attention_in_multiplier,
        past_key_values=cache,
        **alone,
        **given,
    )
    attended = visited(visits, "attn", attended * module.attn_out_multiplier)
    hidden = residual + (mixed + attended)
    return (hidden + module.feed_forward(module.pre_ff_layernorm(hidden)),)
