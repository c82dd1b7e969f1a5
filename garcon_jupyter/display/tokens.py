"""The picture of a text, coloured by how surprising each token was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from garcon_jupyter.experiments.clean_passes import decoder, whole_pieces
from garcon_jupyter.experiments.token_metrics import METRICS, score
from garcon_jupyter.widgets import TokensWidget

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client


def tokens_picture(
    rmodel: Client, text: Any, metrics: Mapping[str, Any] | None = None, title: str = ""
) -> TokensWidget:
    """The tokens of a text, coloured by the model's surprise and by values of your own."""
    scores = score(rmodel, text)
    words = decoder(rmodel, scores.ids.flatten().tolist())
    predictions = [
        [(words[token], chance) for token, chance in zip(*both, strict=True)]
        for both in zip(scores.ids.tolist(), scores.probabilities.tolist(), strict=True)
    ]
    own = {name: scores.metrics[:, place] for place, name in enumerate(METRICS)}
    named = {**(metrics or {}), **own}
    return TokensWidget(whole_pieces(rmodel, scores.tokens), named, predictions, title or "tokens")
