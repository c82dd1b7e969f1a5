"""A text coloured by how far its tokens lie along a direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from garcon_jupyter.experiments.clean_passes import one_text, whole_pieces
from garcon_jupyter.widgets import TokensWidget

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client
    from garcon_jupyter.experiments.directions.direction import Direction


def show(direction: Direction, rmodel: Client, text: Any) -> TokensWidget:
    """The tokens of a text, coloured by their projection."""
    tokens = one_text(rmodel, text)
    found = direction.projection(rmodel, tokens)
    metrics = {f"along {direction.name}": found.values}
    return TokensWidget(whole_pieces(rmodel, tokens), metrics, title=direction.point)
