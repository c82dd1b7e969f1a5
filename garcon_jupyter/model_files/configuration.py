"""Numbers of a configuration that may differ from layer to layer.

transformers keeps one configuration for all layers of most models. Where layers differ in what the others share,
such as the width of their heads, it refuses to be asked for *the* value, and has one configuration for each layer.
"""

from __future__ import annotations

from typing import Any


def of_each_layer(config: Any, name: str) -> tuple[Any, ...]:
    """The values that the layers have, each once, smallest first; none where no configuration says it."""
    if name in (getattr(config, "per_layer_attributes", None) or ()):
        layers = config.per_layer_config
        found = {getattr(layers[i], name, None) for i in range(config.num_hidden_layers)}
        return tuple(sorted(found - {None}))
    value = getattr(config, name, None)
    if isinstance(value, (list, tuple)):  # one for each layer
        return tuple(sorted(set(value)))
    return () if value is None else (value,)


def of_all_layers(config: Any, name: str) -> Any:
    """The value that all layers share; None where they do not, or no configuration says it."""
    values = of_each_layer(config, name)
    return values[0] if len(values) == 1 else None
