"""Attention of a whole model, a few layers at a time.

A layer travels whole when it is opened: its own forward, with that layer's pattern probed and all others on the fast
kernel. For the overview the server pools each head to a thumbnail where it is, so that of many layers little travels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.look import read
from garcon_jupyter.client.recordings import Recording, Recordings
from garcon_jupyter.connection.background import answering, standing_behind
from garcon_jupyter.experiments.clean_passes import contexts, need, one_text, whole_pieces
from garcon_jupyter.points import fill
from garcon_jupyter.widgets import AttentionWidget

if TYPE_CHECKING:
    from garcon_jupyter.client.client import RemoteModel

PATTERN = "layers.{i}.attn.pattern"


def attention_widget(
    rmodel: RemoteModel, text: Any, layer: int | None = None, hide_first: bool = False
) -> AttentionWidget:
    """The attention patterns of one text: all layers at a glance, or one of them to begin with."""
    need(rmodel, "The picture of attention", PATTERN)
    tokens = one_text(rmodel, text)
    first = layer or 0
    rmodel.catalog.point(fill(PATTERN, first))  # says so where there is no such layer

    def load(number: int) -> Any:
        name = fill(PATTERN, number)
        return read(rmodel, tokens, [name])[name]

    def glance(layers: Sequence[int], _row: int, side: int, hidden: bool) -> list[Any]:
        return _pooled(rmodel, tokens, layers, side, hidden)

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


def recorded_attention(
    rmodel: RemoteModel, recordings: Recordings, attribute: str
) -> AttentionWidget:
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


def _pooled(
    rmodel: RemoteModel, tokens: Any, layers: Sequence[int], side: int, hide_first: bool
) -> list[Any]:
    """The patterns of several layers in one forward, [head, ≤ side, ≤ side] each."""
    names = [fill(PATTERN, layer) for layer in layers]
    function = _pooler(side, hide_first)
    with contexts(rmodel, "overview") as name:
        points = rmodel.probe_points
        probes = [points[point].probe(function, name=name, read_only=True) for point in names]
        rmodel.forward(tokens, probes=probes, logits="none")
        recordings = rmodel.recordings(fetch=False)
        handles = [recordings[point, name].heads for point in names]
        fetched = rmodel.fetch(*handles)
    return [fetched] if len(handles) == 1 else fetched


def _pooler(side: int, hide_first: bool) -> Callable[[Any, Any], None]:
    """A probe that saves the first text's heads, of each run of cells the largest weight."""

    def keep_small(save_ctx: Any, tensor: Any) -> None:
        import torch

        heads = tensor[0].float()
        if hide_first and heads.shape[-1] > 1:
            heads[:, :, 0] = heads[:, 0, :] = 0.0
        size = -(-max(heads.shape[-2:]) // side)
        save_ctx.heads = torch.nn.functional.max_pool2d(heads, size, ceil_mode=True)

    return keep_small
