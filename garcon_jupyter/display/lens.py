"""The picture of a lens: it fills from the last layer down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from garcon_jupyter.connection.background import Filling
from garcon_jupyter.experiments.clean_passes import decoder, one_text, whole_pieces
from garcon_jupyter.experiments.lenses.lens import LOGIT, Lens
from garcon_jupyter.experiments.lenses.readouts import LayerReadouts, Target, read_by_layers
from garcon_jupyter.widgets import LensWidget, Readouts

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client


def lens_picture(
    rmodel: Client,
    text: Any,
    target: Target = "last",
    statistic: str = "top probability",
    answer: str | int | None = None,
    lens: Lens = LOGIT,
) -> LensWidget:
    """Layer × position of what every layer would predict; it fills from the last layer down."""
    tokens = one_text(rmodel, text)
    words: dict[int, str] = {}

    def named(found: LayerReadouts) -> Readouts:
        new = set(found.ids[found.ids >= 0].tolist()) - set(words)
        words.update(decoder(rmodel, new))
        return Readouts(found.statistics, found.ids, found.probabilities, found.answers)

    growing = read_by_layers(rmodel, tokens, target, answer=answer, lens=lens)
    first = named(next(growing))
    strings = whole_pieces(rmodel, tokens)
    widget = LensWidget(first, strings, words.__getitem__, title=lens.kind, statistic=statistic)
    widget.later("layers", Filling(growing, lambda found: widget.fill(named(found))))
    return widget
