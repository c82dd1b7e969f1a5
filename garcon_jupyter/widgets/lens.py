"""The lens: what each layer would predict if the model ended there.

The *logit lens* (nostalgebraist 2020) reads the residual stream after every layer through the final
norm and the unembedding, as if it were the last. Which statistic of such a readout one looks at
is another question than how it is drawn (the split is tuned-lens's, Belrose et al. 2023): here are
the statistics, :mod:`.grid` draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays
from garcon_jupyter.widgets.grid import GridWidget, Words
from garcon_jupyter.widgets.labels import label
from garcon_jupyter.widgets.sheet import Scale, Sheet

STATISTICS = ("top probability", "answer probability", "answer rank", "entropy", "KL to the last")
"""What a readout is told by, in this order."""

_SCALES: dict[str, Scale] = {"answer rank": "rank"}


@dataclass(frozen=True)
class Readouts:
    """What was read at every layer and position.

    Attributes:
        statistics: float32 [layer, token, statistic], by :data:`STATISTICS`: the probability of the
            likeliest token; probability and rank (0 is first) of the *answer*; entropy, and
            Kullback-Leibler divergence of this layer's prediction from the last one's,
            KL(last ‖ this), both in nats.
        ids: [layer, token, choice], the likeliest tokens.
        probabilities: float32, of those.
        answers: [token], the token that probability and rank are of.

    Of a layer that was not read (yet) all statistics are NaN and all ids -1.
    """

    statistics: arrays.Floats
    ids: NDArray[np.int64]
    probabilities: arrays.Floats
    answers: NDArray[np.int64]

    @classmethod
    def missing(cls, layers: int, tokens: int, choices: int = 5) -> Readouts:
        """Of layers that are still to be read."""
        return cls(
            np.full((layers, tokens, len(STATISTICS)), np.nan, np.float32),
            np.full((layers, tokens, choices), -1, np.int64),
            np.zeros((layers, tokens, choices), np.float32),
            np.full(tokens, -1, np.int64),
        )

    @classmethod
    def of_logits(cls, logits: Any, answers: Any = None, choices: int = 5) -> Readouts:
        """From the logits of every layer, [layer, token, V]; the last layer is the model's own.

        Args:
            logits: numpy or torch.
            answers: [token] of token ids; by default what the last layer finds likeliest.
            choices: how many likely tokens to keep.
        """
        scores = arrays.as_float32(logits).astype(np.float64)
        if scores.ndim != 3:
            raise BadRequest(f"Logits of {scores.ndim} axes.", "Give [layer, token, V].")
        logs = scores - scores.max(-1, keepdims=True)
        logs -= np.log(np.exp(logs).sum(-1, keepdims=True))
        wanted = logs[-1].argmax(-1) if answers is None else np.asarray(answers, dtype=np.int64)
        of_answer = np.take_along_axis(logs, np.broadcast_to(wanted, logs.shape[:2])[..., None], -1)
        chances = np.exp(logs)
        last = chances[-1]
        statistics = np.stack(
            [
                chances.max(-1),
                np.exp(of_answer[..., 0]),
                (logs > of_answer).sum(-1),
                -(chances * logs).sum(-1),
                (last * (logs[-1] - logs)).sum(-1),
            ],
            axis=-1,
        )
        ids = np.argsort(-logs, axis=-1, kind="stable")[..., :choices]
        kept = np.take_along_axis(chances, ids, -1)
        return cls(statistics.astype(np.float32), ids, kept.astype(np.float32), wanted)


class LensWidget(GridWidget):
    """Layer × position: the likeliest token of every layer, coloured by a statistic to choose.

    Args:
        readouts: what was read; :meth:`Readouts.of_logits` makes it of plain arrays.
        tokens: the text, a string for each position.
        word: token id to its string.
        layers: names of the rows; by default their numbers.
        title: what is shown.
        statistic: which is shown first.

    Attributes:
        readouts: as given.
        sheet: the statistic that is shown, its place in :data:`STATISTICS`.
        selected_row, selected_column: the selected layer and position, -1 for none.

    Raises:
        BadRequest: tokens or layers do not fit; there is no such statistic.
    """

    def __init__(
        self,
        readouts: Readouts,
        tokens: Sequence[str],
        word: Callable[[int], str] = str,
        layers: Sequence[str] | None = None,
        title: str = "logit lens",
        statistic: str = STATISTICS[0],
    ) -> None:
        if statistic not in STATISTICS:
            raise BadRequest(
                f"There is no statistic {statistic!r}.", f"There are {', '.join(STATISTICS)}."
            )
        self.readouts = readouts
        rows = list(layers or map(str, range(readouts.statistics.shape[0])))
        sheets = [
            Sheet(name, values, rows, tokens, scale=_SCALES.get(name, "positive"), limit=limit)
            for name, values, limit in (
                (name, readouts.statistics[..., place], 1.0 if "probability" in name else None)
                for place, name in enumerate(STATISTICS)
            )
        ]
        self._word = word
        super().__init__(sheets, title, _words(readouts, word))
        self.sheet = STATISTICS.index(statistic)

    def fill(self, readouts: Readouts) -> None:
        """Show readouts of the same layers and tokens, more of which have come."""
        self.readouts = readouts
        for place, sheet in enumerate(self._sheets):
            sheet.values = arrays.as_float32(readouts.statistics[..., place])
        self.redraw(_words(readouts, self._word))


def _words(readouts: Readouts, word: Callable[[int], str]) -> Words:
    """The likeliest tokens of every cell."""
    ids, places = np.unique(readouts.ids, return_inverse=True)
    unread = int((ids < 0).sum())  # one that stands for all of them, or none
    names = [label(str(word(token))) for token in ids[unread:].tolist()]
    return Words(names, places.reshape(readouts.ids.shape) - unread, readouts.probabilities)
