"""Attention of a whole model, a layer at a time.

The first layer travels when the picture is made, another when it is chosen: its own forward, with that
layer's pattern probed and all others on the fast kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from garcon_jupyter.easy import read
from garcon_jupyter.looking.passes import one_text, whole_pieces
from garcon_jupyter.widgets import AttentionWidget

if TYPE_CHECKING:
    from garcon_jupyter.remote_model import RemoteModel


def attention_widget(rmodel: RemoteModel, text: Any, layer: int = 0) -> AttentionWidget:
    """The attention patterns of one text in all layers."""
    tokens = one_text(rmodel, text)
    rmodel.catalog.point(f"layers.{layer}.attn.pattern")  # says so where there is no such layer

    def load(number: int) -> Any:
        name = f"layers.{number}.attn.pattern"
        return read(rmodel, tokens, [name])[name]

    return AttentionWidget(
        load(layer),
        [whole_pieces(rmodel, tokens)],
        "attention pattern",
        layers=rmodel.catalog.n_layers,
        layer=layer,
        load=load,
    )
