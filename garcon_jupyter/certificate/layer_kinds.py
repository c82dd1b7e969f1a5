"""Kinds of layers: those that have the same points and mix tokens alike, of which a few stand for all."""

from __future__ import annotations

from garcon_jupyter.certificate.result import LayerKind
from garcon_jupyter.points import Catalog


def layer_kinds(catalog: Catalog, every_layer: bool = False) -> dict[str, LayerKind]:
    """The kinds of a model's layers by name, in the order in which they occur.

    Of each the first and the last layer are read, and the last is moved.

    Args:
        every_layer: read all of them.
    """
    found: dict[tuple[str, frozenset[str]], list[int]] = {}
    for layer in range(catalog.n_layers):
        having = frozenset(t for t, layers in catalog.layers.items() if layer in layers)
        mixer = catalog.kinds[layer] if layer < len(catalog.kinds) else "layer"
        found.setdefault((mixer, having), []).append(layer)
    kinds: dict[str, LayerKind] = {}
    for (mixer, _), layers in found.items():
        name = mixer if mixer not in kinds else f"{mixer}, from {layers[0]}"
        read = tuple(layers) if every_layer else tuple(dict.fromkeys((layers[0], layers[-1])))
        kinds[name] = LayerKind(tuple(layers), read, layers[-1])
    return kinds
