"""What mixes the tokens of each layer, by a transformers configuration."""

from __future__ import annotations

from typing import Any

MIXERS = {
    "full_attention": "attention",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
    "indexed_attention": "sparse",
    "linear_attention": "linear",
    "conv": "conv",
    "mamba": "mamba",
    "hybrid": "attention+mamba",  # side by side
    "mlp": "mlp",  # and nothing that mixes tokens
    "moe": "moe",
}
"""What mixes the tokens of a layer: transformers' word for it → that of :attr:`Catalog.kinds`."""


def standard_mixers(config: Any) -> tuple[str, ...]:
    """The mixer of each layer from a transformers configuration, by the usual names.

    Where it names no kinds, all layers attend alike: to a window, if there is one.
    """
    named = getattr(config, "layer_types", None)
    if named:
        return tuple(MIXERS.get(name, name) for name in named)
    alike = "sliding" if getattr(config, "sliding_window", None) else "attention"
    return (alike,) * getattr(config, "num_hidden_layers", 0)
