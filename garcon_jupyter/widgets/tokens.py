"""The tokens widget: a text as it was written, coloured by any value per token.

The text stays a text: newlines break the line, right-to-left words run from right to left, and what
cannot be seen (a tab, half a character, a mark that turns the writing direction) is shown as a sign.
Values and predictions travel as binary, so 4,000 tokens with five predictions each are 160 kB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import traitlets

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays, bundle, labels, still_text
from garcon_jupyter.widgets.picture import Picture
from garcon_jupyter.widgets.values import Values

Predictions = Sequence[Sequence[tuple[str, float]]]
"""For each token, likely next tokens with their probabilities, most likely first."""


class TokensWidget(Picture):
    """A text coloured by a value per token; several values to choose from.

    Point at a token for its values and what the model expected after it; click, or walk with the
    arrow keys, to select it; m goes to the next metric.

    Args:
        tokens: token strings, in order.
        metrics: name to values [token]; NaN where a token has none (a first token has no loss). A
            plain array is one metric called "value".
        predictions: for each token, the likeliest next tokens with their probabilities.
        title: what is shown.
        metric: name of the metric shown first; by default the first.

    Attributes:
        selected_token: position of the selected token, -1 for none. Set by the user or by you;
            ``widget.observe(fn, "selected_token")`` calls you on a change.
        metric: which metric is shown, by its place.
        metrics: names of the metrics.

    Raises:
        BadRequest: a metric has another length than the text; there is no such metric.
    """

    _esm = bundle.module("tokens")
    _css = bundle.style("tokens")
    TOKEN_TRAIT = "selected_token"

    pieces = traitlets.List(traitlets.Unicode()).tag(sync=True)
    metrics = traitlets.List(traitlets.Unicode()).tag(sync=True)
    metric = traitlets.Int(0).tag(sync=True)
    numbers = traitlets.Bytes().tag(sync=True)  # float32 [metric, token]
    limits = traitlets.List(traitlets.Float()).tag(sync=True)  # magnitude of full colour
    selected_token = traitlets.Int(-1).tag(sync=True)

    words = traitlets.List(traitlets.Unicode()).tag(sync=True)  # that are predicted anywhere
    predicted = traitlets.Bytes().tag(sync=True)  # int32 [token, k]: index into words, -1 for none
    probabilities = traitlets.Bytes().tag(sync=True)  # float32 [token, k]

    def __init__(
        self,
        tokens: Sequence[str],
        metrics: Mapping[str, Any] | Any,
        predictions: Predictions | None = None,
        title: str = "",
        metric: str | None = None,
    ) -> None:
        named = metrics if isinstance(metrics, Mapping) else {"value": metrics}
        self._values = _per_token(named, len(tokens))
        names = list(named)
        if metric is not None and metric not in names:
            raise BadRequest(f"There is no metric {metric!r}.", f"There are {', '.join(names)}.")
        words, ids, probabilities = packed(predictions or [], len(tokens))
        super().__init__(
            title=title,
            pieces=[labels.written(str(token)) for token in tokens],
            metrics=names,
            metric=names.index(metric) if metric else 0,
            numbers=self._values.tobytes(),
            limits=[arrays.colour_limit(row) for row in self._values],
            words=words,
            predicted=ids.tobytes(),
            probabilities=probabilities.tobytes(),
        )

    @traitlets.validate("metric")
    def _a_metric(self, proposal: Any) -> int:
        value = int(proposal["value"])
        if not 0 <= value < max(len(self._values), 1):
            raise traitlets.TraitError(f"metric is {value}; there are {len(self._values)}.")
        return value

    @property
    def values(self) -> Values:
        """Of every metric, [metric, position]."""
        labels = {"metric": tuple(self.metrics), "position": tuple(self.pieces)}
        return Values(self._values.copy(), ("metric", "position"), labels, self.title or "tokens")

    @property
    def summary(self) -> str:
        return f"{len(self.pieces):,} tokens by {', '.join(self.metrics)}"

    def still(self) -> str:
        values, limit = self._values[self.metric], self.limits[self.metric]
        name = self.metrics[self.metric]
        return still_text.tokens(self.pieces, values, limit, self.title or "tokens", name)


def packed(predictions: Predictions, tokens: int) -> tuple[list[str], Any, Any]:
    """Predictions as the words that occur, int32 indices [token, k] and float32 probabilities.

    Raises:
        BadRequest: there are predictions for another number of tokens.
    """
    if not predictions:
        return [], np.zeros((tokens, 0), np.int32), np.zeros((tokens, 0), np.float32)
    if len(predictions) != tokens:
        raise BadRequest(
            f"There are predictions for {len(predictions)} tokens, and the text has {tokens}.",
            "Give a list for every token; an empty one where there are none.",
        )
    most = max(map(len, predictions))
    places: dict[str, int] = {}
    ids = np.full((tokens, most), -1, np.int32)
    probabilities = np.zeros((tokens, most), np.float32)
    for position, choices in enumerate(predictions):
        for rank, (word, probability) in enumerate(choices):
            ids[position, rank] = places.setdefault(labels.label(str(word)), len(places))
            probabilities[position, rank] = probability
    return list(places), ids, probabilities


def _per_token(metrics: Mapping[str, Any], tokens: int) -> arrays.Floats:
    """All metrics as one float32 array [metric, token]."""
    if not metrics:
        raise BadRequest("There is no metric to colour by.", "Give {name: values}.")
    rows = []
    for name, values in metrics.items():
        row = arrays.as_float32(values).reshape(-1)
        if len(row) != tokens:
            raise BadRequest(
                f"{name!r} has {len(row)} values, and the text has {tokens} tokens.",
                "Give one value for every token, NaN where there is none.",
            )
        rows.append(row)
    return np.stack(rows)
