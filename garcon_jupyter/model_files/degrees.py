"""By which degrees a model can be cut: numbers of its configuration, known before anything starts.

The one place of these rules: the notebook refuses degrees by them, and the server chooses degrees by them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from garcon_jupyter.errors import BadDegrees
from garcon_jupyter.model_files.configuration import of_each_layer
from garcon_jupyter.model_files.multimodal import text_config

OWN_PLANS = ("gpt2", "gpt_oss", "qwen3_vl_text")
"""Architectures, by ``model_type``, that are cut by a plan of ours, as transformers has none that would do."""

UNCUT = ("qwen3_vl_moe_text",)
"""Architectures that are not cut though transformers has a plan: their checkpoints store experts turned round, and are
turned back when they are read, which cannot be done with a part of them."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of a configuration that degrees must divide.

    Where layers differ in one, it is what divides them all.
    """

    heads: int
    kv_heads: int
    neurons: tuple[int, ...]
    """Widths of the MLPs: one, or that of the experts as well."""
    layers: int
    alike: bool = True
    """Whether all layers have as many key/value heads."""


def sizes_of(config: Any) -> Sizes:
    """The sizes of a transformers configuration, by the usual names; of a multimodal one, those of its text part."""
    config = text_config(config)

    def first(*names: str) -> int | None:
        for name in names:
            found = [value for value in of_each_layer(config, name) if isinstance(value, int)]
            if size := math.gcd(*found):
                return size
        return None

    heads = first("num_attention_heads", "n_head") or 1
    width = first("hidden_size", "n_embd") or 1
    neurons = {first("intermediate_size", "n_inner", "ffn_dim") or 4 * width}
    for name in ("moe_intermediate_size", "intermediate_size_mlp"):
        if other := first(name):
            neurons.add(other)
    return Sizes(
        heads,
        first("num_key_value_heads") or heads,
        tuple(sorted(neurons)),
        first("num_hidden_layers", "n_layer") or 1,
        len(of_each_layer(config, "num_key_value_heads")) < 2,
    )


def divides(config: Any, tp: int) -> bool:
    """Whether a tensor-parallel degree cuts heads and neurons evenly.

    Key/value heads may be fewer than ranks: then each is held by the same number of neighbours, in all layers.
    """
    sizes = sizes_of(config)
    kv_even = sizes.kv_heads % tp == 0 or (sizes.alike and tp % sizes.kv_heads == 0)
    return sizes.heads % tp == 0 and kv_even and all(n % tp == 0 for n in sizes.neurons)


def possible_tp(config: Any, most: int = 64) -> list[int]:
    """Tensor-parallel degrees that divide the model, smallest first."""
    text = text_config(config)
    if any(getattr(text, "activation_sparsity_pattern", None) or ()):
        return [1]  # which neurons are cut off depends on all of a layer
    if text.model_type in UNCUT:
        return [1]
    if not (getattr(text, "base_model_tp_plan", None) or text.model_type in OWN_PLANS):
        return [1]
    return [tp for tp in range(1, most + 1) if divides(config, tp)]


def check(config: Any, tp: int = 1, pp: int = 1) -> None:
    """Refuse degrees that do not divide the model.

    Raises:
        BadDegrees: with the model's numbers and the degrees that would work.
    """
    sizes, possible = sizes_of(config), possible_tp(config)
    if tp > 1 and possible == [1] and divides(config, tp):
        raise BadDegrees(
            f"There is no plan to cut {config.model_type!r} by tensor parallelism.",
            f"Launch it with tp=1 and, if it does not fit, pp up to {sizes.layers}.",
        )
    if tp not in possible:
        neurons = " and ".join(map(str, sizes.neurons))
        raise BadDegrees(
            f"tp={tp} does not divide the model: it has {sizes.heads} heads, "
            f"{sizes.kv_heads} key/value heads and {neurons} neurons.",
            f"Degrees that do: {', '.join(map(str, possible))}.",
        )
    if pp > sizes.layers:
        raise BadDegrees(
            f"pp={pp} is more stages than the model has layers, {sizes.layers}.",
            f"Use pp up to {sizes.layers}.",
        )
