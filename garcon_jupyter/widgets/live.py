"""The live view: a text and a few edits of the model, and at once what becomes of the prediction.

The widget holds what the hand sets (a text, edits with a strength each) and shows what comes back. What
comes back is computed by a function it is given, beside the kernel: of a slider's many places only the
latest is computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import traitlets

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays, bundle, labels, still, svg
from garcon_jupyter.widgets.picture import Picture
from garcon_jupyter.widgets.values import Values

Kind = Literal["ablate", "scale", "add"]

RANGES: dict[str, tuple[float, float]] = {"ablate": (0, 1), "scale": (-4, 4), "add": (-40, 40)}
"""From where to where the slider of each kind of edit goes."""


@dataclass(frozen=True)
class Edit:
    """A change of the model at a point.

    Attributes:
        point: name of the point.
        kind: "ablate" takes away the share `strength` of the value; "scale" multiplies by it; "add" adds
            so much of a direction.
        strength: of the edit.
        unit: the neuron, dimension or head that is edited; -1 for all. To add, the unit's own direction.
        direction: name of a direction to add, where `unit` is -1.
        on: whether it is applied.
    """

    point: str
    kind: Kind = "ablate"
    strength: float = 1.0
    unit: int = -1
    direction: str = ""
    on: bool = True

    def __post_init__(self) -> None:
        if self.kind not in RANGES:
            raise BadRequest(f"There is no edit {self.kind!r}.", f"Edits are {', '.join(RANGES)}.")


@dataclass(frozen=True)
class Outcome:
    """What the model makes of a text, without and with the edits.

    Attributes:
        tokens: token strings.
        predictions: (next token, probability with the edits, probability without), likeliest first.
        activations: name of a point to its values [token, unit] with the edits and without.
    """

    tokens: Sequence[str]
    predictions: Sequence[tuple[str, float, float]]
    activations: dict[str, tuple[Any, Any]] = field(default_factory=dict)


Compute = Callable[[str, list[Edit]], Outcome]


class LiveWidget(Picture):
    """A text and sliders; predictions and activations follow within a second.

    Args:
        compute: (text, edits that are on) to their :class:`Outcome`.
        text: the first text.
        points: points that edits can be made at.
        edits: the first edits.
        directions: names of directions that can be added.
        title: what is shown.
        seconds_first: how long to wait for the first outcome, which the still picture shows.

    Attributes:
        text: the text; set by the user or by you.
        edits: the edits, as dictionaries with the attributes of :class:`Edit`.
        outcome: what was computed last; None before the first.
        milliseconds: how long that took.
    """

    _esm = bundle.module("live")
    _css = bundle.style("live")

    text = traitlets.Unicode().tag(sync=True)
    points = traitlets.List(traitlets.Unicode()).tag(sync=True)
    directions = traitlets.List(traitlets.Unicode()).tag(sync=True)
    ranges = traitlets.Dict(RANGES).tag(sync=True)
    edits = traitlets.List(traitlets.Dict()).tag(sync=True)
    pieces = traitlets.List(traitlets.Unicode()).tag(sync=True)
    predictions: Any = traitlets.List().tag(sync=True)
    strips: Any = traitlets.List().tag(sync=True)  # {name, units, pooled, limit, values, before}
    milliseconds = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        compute: Compute,
        text: str,
        points: Sequence[str] = (),
        edits: Sequence[Edit] = (),
        directions: Sequence[str] = (),
        title: str = "live",
        seconds_first: float = 10.0,
    ) -> None:
        self._compute = compute
        self.outcome: Outcome | None = None
        super().__init__(
            title=title,
            text=text,
            points=list(points),
            directions=list(directions),
            edits=[asdict(edit) for edit in edits],
        )
        self.observe(lambda _change: self.refresh(), ["text", "edits"])
        self.refresh()
        self.worker.wait(seconds_first)

    def refresh(self) -> None:
        """Compute again, beside the kernel."""
        self.later("outcome", self._refresh)

    def _refresh(self) -> None:
        start = time.perf_counter()
        edits = [Edit(**edit) for edit in self.edits]
        outcome = self._compute(self.text, [edit for edit in edits if edit.on])
        self.outcome = outcome
        with self.hold_sync():
            self.pieces = [labels.written(str(token)) for token in outcome.tokens]
            self.predictions = [
                [labels.label(word), float(with_edits), float(without)]
                for word, with_edits, without in outcome.predictions
            ]
            self.strips = [_strip(name, *both) for name, both in outcome.activations.items()]
            self.milliseconds = round((time.perf_counter() - start) * 1000)

    @property
    def values(self) -> Values:
        """Probabilities of the next tokens that are shown, [run, token]: with the edits and without them."""
        words = tuple(word for word, _, _ in self.predictions)
        both = np.array([row[1:] for row in self.predictions], dtype=np.float64).reshape(-1, 2)
        labels = {"run": ("edited", "plain"), "token": words}
        return Values(both.T.copy(), ("run", "token"), labels, "probability of the next token")

    @property
    def summary(self) -> str:
        return f"{self.text!r} with {sum(edit['on'] for edit in self.edits)} edits"

    def _why_unfinished(self) -> str:
        if self.outcome is not None:
            return super()._why_unfinished()
        return "failed, nothing computed" if self.trouble else "not finished: nothing computed yet"

    def still(self) -> str:
        rows = [(word, after, before) for word, after, before in self.predictions]
        lines = [f"“{self.text}”", *filter(None, [self._why_unfinished()])]
        lines += [
            f"{edit['kind']} {edit['point']}"
            f"{' · unit ' + str(edit['unit']) if edit['unit'] >= 0 else ''}"
            f"{' · ' + edit['direction'] if edit['direction'] else ''} · {edit['strength']:g}"
            for edit in self.edits
            if edit["on"]
        ]
        return svg.figure(still.predictions(rows, self.title, lines), self.title, self.summary)


def _strip(name: str, after: Any, before: Any) -> dict[str, Any]:
    """A point's values as the browser takes them, pooled to at most 512 columns."""
    whole = [arrays.as_float32(part) for part in (after, before)]
    pooled = max(1, -(-whole[0].shape[-1] // 512))
    return {
        "name": name,
        "tokens": whole[0].shape[0],
        "units": whole[0].shape[1],
        "pooled": pooled,
        "limit": arrays.colour_limit(whole[1]),
        "values": arrays.pool(whole[0], pooled).tobytes(),
        "before": arrays.pool(whole[1], pooled).tobytes(),
        "changed": arrays.pool(whole[0] - whole[1], pooled).tobytes(),
    }
