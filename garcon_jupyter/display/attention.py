"""The picture of attention: all layers at a glance, of which one is opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.recordings import Recording, Recordings
from garcon_jupyter.connection.background import answering, standing_behind
from garcon_jupyter.experiments.attention import PATTERN, layer_pattern, pooled_patterns
from garcon_jupyter.experiments.clean_passes import need, one_text, whole_pieces
from garcon_jupyter.points import fill
from garcon_jupyter.widgets import AttentionWidget

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client


def attention_picture(
    rmodel: Client, text: Any, layer: int | None = None, hide_first: bool = False
) -> AttentionWidget:
    """The attention patterns of one text: all layers at a glance, or one of them to begin with."""
    need(rmodel, "The picture of attention", PATTERN)
    tokens = one_text(rmodel, text)
    first = layer or 0
    rmodel.catalog.point(fill(PATTERN, first))  # says so where there is no such layer

    def load(number: int) -> Any:
        return layer_pattern(rmodel, tokens, number)

    def glance(layers: Sequence[int], _row: int, side: int, hidden: bool) -> list[Any]:
        return pooled_patterns(rmodel, tokens, layers, side, hidden)

    return AttentionWidget(
        load(first),
        [whole_pieces(rmodel, tokens)],
        "attention pattern",
        layers=rmodel.catalog.n_layers,
        layer=first,
        load=answering(load),
        glance=standing_behind(glance),
        overview=layer is None,
        hide_first=hide_first,
    )


def recorded_attention(rmodel: Client, recordings: Recordings, attribute: str) -> AttentionWidget:
    """The attention patterns that a probe has recorded in all layers, at a glance.

    Raises:
        NoRecording: it has not, in the first layer.
    """
    names = [fill(PATTERN, layer) for layer in range(rmodel.catalog.n_layers)]

    def load(layer: int) -> Any:
        return Recording.handle(recordings[names[layer]], attribute).fetch()

    read_there = rmodel.tokens_at.get((names[0], None))
    return AttentionWidget(
        load(0),
        None if read_there is None else rmodel.token_strings(read_there),
        "attention pattern",
        layers=rmodel.catalog.n_layers,
        load=answering(load),
        overview=True,
    )
