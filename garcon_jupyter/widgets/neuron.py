"""The dashboard of one neuron (or feature): what it fires on, how often, and what it says.

The picture takes a plain record, such as an atlas keeps, so it can be drawn from a file, from a database, or
from arrays by :func:`record`. The parts are those that the field has settled on: density, the strongest
examples, examples from intervals of equal width between 0 and the strongest (which is another thing than
quantiles, of equal count), the logits that it raises and lowers, and the units that fire with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import traitlets

from garcon_jupyter.amounts import of_tokens, share
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays, bundle, labels, still_neuron
from garcon_jupyter.widgets.picture import Picture
from garcon_jupyter.widgets.values import Values

Try = Callable[[str], tuple[Sequence[str], Any]]
"""A text to its token strings and the neuron's value at each."""

Page = tuple[Mapping[str, Any], Try | None]
"""The record of a unit, and what runs a text of one's own for it."""

BINS = 40


class NeuronWidget(Picture):
    """One neuron, on one page, with a field for a text of your own.

    Args:
        record: see :func:`record` for its entries; all but "name" may be missing. An example is
            ``{"tokens": [strings], "values": [token]}``. It may have "connections" with other units: a list of kinds, each
            ``{"name": …, "said": how much of all they are, "rows": [[partner, value, the partner's key or ""]]}``. It may have "said", what it is
            said to fire for: a list of ``{"text": …, "by": who says it, "scores": in words}``.
        try_text: runs a text through the model; None where there is no model.
        text: the text that is tried first.
        title: what is shown; by default the record's name.
        key: by which connections of other units name this one.
        open_page: gives the page of a unit by its key; then connections are links to the pages of their partners.

    Attributes:
        text: the text that is tried; set by the user or by you.
        tried: the example that became of it.
        key: of the unit that is shown.
        wanted: the key of one that is to be shown; set by the user's click or by you.
        behind: the key of the one that was shown before; "" where it is the first.

    Raises:
        BadRequest: an example has another number of values than of tokens.
    """

    _esm = bundle.module("neuron")
    _css = bundle.style("neuron")

    record = traitlets.Dict().tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)
    tried = traitlets.Dict().tag(sync=True)
    can_try = traitlets.Bool(False).tag(sync=True)
    key = traitlets.Unicode().tag(sync=True)
    wanted = traitlets.Unicode().tag(sync=True)
    behind = traitlets.Unicode().tag(sync=True)
    can_open = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        record: Mapping[str, Any],
        try_text: Try | None = None,
        text: str = "",
        title: str = "",
        key: str = "",
        open_page: Callable[[str], Page] | None = None,
    ) -> None:
        self._try, self._open_page, self._trail = try_text, open_page, [key]
        super().__init__(
            title=title or str(record.get("name", "neuron")),
            record=_written(record),
            can_try=try_text is not None,
            key=key,
            can_open=open_page is not None,
        )
        self.observe(self._ask, "text")
        self.observe(self._turn, "wanted")
        self.text = text

    def _ask(self, _change: Any) -> None:
        text = self.text
        if not text or self._try is None:
            return
        run = self._try

        def task() -> None:
            tokens, values = run(text)
            self.tried = _example({"tokens": tokens, "values": values})

        self.later("text", task)

    def _turn(self, _change: Any) -> None:
        """Show the page of another unit in place of this one's."""
        wanted = self.wanted
        if not wanted or self._open_page is None:
            return
        open_page = self._open_page

        def task() -> None:
            try:
                record, self._try = open_page(wanted)
                if wanted in self._trail:
                    del self._trail[self._trail.index(wanted) + 1 :]
                else:
                    self._trail.append(wanted)
                with self.hold_trait_notifications():
                    self.record, self.title = _written(record), str(record.get("name", wanted))
                    self.key, self.tried, self.can_try = wanted, {}, self._try is not None
                    self.behind = self._trail[-2] if len(self._trail) > 1 else ""
                self._ask(None)
            finally:
                self.wanted = ""

        self.later("page", task)

    @property
    def values(self) -> Values:
        """Of the strongest examples, [example, position]; NaN beyond the end of an example. Of a text that was tried:
        the first."""
        examples = [*filter(None, [self.tried]), *self.record.get("top", ())]
        longest = max((len(example["values"]) for example in examples), default=0)
        whole = np.full((len(examples), longest), np.nan, np.float32)
        for row, example in zip(whole, examples, strict=True):
            row[: len(example["values"])] = example["values"]
        texts = tuple("".join(example["tokens"]) for example in examples)
        return Values(whole, ("example", "position"), {"example": texts}, self.title)

    @property
    def summary(self) -> str:
        return str(self.record["fires"])

    def still(self) -> str:
        return still_neuron.neuron(self.record, self.title)


def record(
    values: Any,
    tokens: Sequence[Sequence[str]],
    name: str = "neuron",
    *,
    top: int = 10,
    intervals: int = 4,
    per_interval: int = 3,
    logits: Sequence[tuple[str, float]] | None = None,
    correlated: Sequence[tuple[str, float]] = (),
    context: int = 16,
) -> dict[str, Any]:
    """A record of one neuron from its values on some texts.

    Args:
        values: [text, token], NaN at padding.
        tokens: token strings of each text, at least as many as it has values.
        name: of the neuron.
        top: how many of the strongest examples to keep, one from a text.
        intervals: into how many of equal width to part the range from 0 to the strongest.
        per_interval: how many examples of each.
        logits: every (or many a) token with what the neuron adds to its logit, in any order.
        correlated: other units with their correlation.
        context: tokens kept on each side of an example's strongest.

    Returns:
        "name", "tokens" (how many were read), "density" (the share of them where it is positive), "largest", "histogram" (of its positive
        values: "counts", "edges"), "top", "intervals" ("low", "high", "share" of the positive tokens,
        "examples"), "up" and "down" (tokens with logits, strongest first), "correlated".
    """
    whole = arrays.as_float32(values)
    if whole.ndim != 2 or len(tokens) != len(whole):
        raise BadRequest(
            f"There are values {whole.shape} and {len(tokens)} texts.", "Give values [text, token]."
        )
    seen = np.isfinite(whole)
    fired = whole[seen & (whole > 0)]
    largest = float(fired.max(initial=0.0))
    counts, edges = np.histogram(fired, bins=BINS, range=(0.0, largest or 1.0))
    peaks = np.where(seen, whole, -np.inf)
    best = peaks.argmax(1) if whole.size else np.zeros(len(whole), int)
    peak = np.take_along_axis(peaks, best[:, None], 1)[:, 0] if whole.size else np.zeros(0)

    def example(text: int) -> dict[str, Any]:
        middle = int(best[text])
        length = int(seen[text].sum())
        part = slice(max(0, middle - context), min(length, middle + context + 1))
        return {"tokens": list(tokens[text][part]), "values": whole[text, part].tolist()}

    strongest = [int(text) for text in np.argsort(-peak, kind="stable") if peak[text] > 0]
    bounds = np.linspace(0.0, largest, intervals + 1)
    parts = []
    for low, high in zip(bounds[:-1][::-1], bounds[1:][::-1], strict=True):
        inside = [text for text in strongest if low < peak[text] <= high]
        portion = float(((fired > low) & (fired <= high)).mean()) if fired.size else 0.0
        examples = [example(text) for text in inside[:per_interval]]
        parts.append(
            {"low": float(low), "high": float(high), "share": portion, "examples": examples}
        )
    falling = sorted(logits or (), key=lambda pair: -pair[1])
    return {
        "name": name,
        "tokens": int(seen.sum()),
        "density": float(fired.size / max(int(seen.sum()), 1)),
        "largest": largest,
        "histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
        "top": [example(text) for text in strongest[:top]],
        "intervals": parts,
        "up": [list(pair) for pair in falling[:10]],
        "down": [list(pair) for pair in falling[:-11:-1]],
        "correlated": [list(pair) for pair in correlated],
    }


def _written(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as the browser takes it: checked, its tokens visible, its shares in words."""
    whole = dict(record)
    whole["top"] = [_example(example) for example in record.get("top", ())]
    density, tokens = record.get("density"), record.get("tokens")
    whole["fires"] = "" if density is None else of_tokens(density, tokens)
    fired = None if density is None or tokens is None else round(density * tokens)
    whole["intervals"] = [
        {
            **part,
            "said": f"{share(part['share'], fired)} of the tokens it fires on",
            "examples": [_example(example) for example in part.get("examples", ())],
        }
        for part in record.get("intervals", ())
    ]
    for side in ("up", "down"):
        whole[side] = [[labels.label(str(w)), float(v)] for w, v in record.get(side, ())]
    whole["connections"] = [
        {**part, "rows": [[labels.label(str(w)), float(v), str(to)] for w, v, to in part["rows"]]}
        for part in record.get("connections", ())
    ]
    whole["correlated"] = [[str(w), float(v)] for w, v in record.get("correlated", ())]
    whole["said"] = [
        {name: str(part.get(name, "")) for name in ("text", "by", "scores")}
        for part in record.get("said", ())
    ]
    found = [max(e["values"], default=0.0) for e in whole["top"]]
    if found or density is not None:
        whole.setdefault("largest", max(found, default=0.0))
    return whole


def _example(example: Mapping[str, Any]) -> dict[str, Any]:
    tokens = [labels.written(str(token)) for token in example["tokens"]]
    values = arrays.as_float32(example["values"]).reshape(-1).tolist()
    if len(tokens) != len(values):
        raise BadRequest(
            f"An example has {len(tokens)} tokens and {len(values)} values.", "Give one for each."
        )
    return {"tokens": tokens, "values": values}
