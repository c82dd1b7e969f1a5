"""Dots on a map, each with a text behind it; the ones that are selected are known to Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import traitlets

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays, bundle, colours, labels, numbers, svg
from garcon_jupyter.widgets.picture import Picture
from garcon_jupyter.widgets.values import Values

HEIGHT = 560.0
"""Of the still picture, in its pixels."""

_MARGIN, _TOP = 24.0, 74.0
_MOST = 4000
"""Dots that a still picture has at most; of more, evenly chosen ones."""

_FAINT, _STRONG = 40, 120
"""How far from zero the colour codes of the least and of the most shaded dot are."""


class DotsWidget(Picture):
    """A map: point at a dot for its text, click to select it, draw around several; shift adds to what is selected.

    Arrow keys go to the nearest dot, + and − zoom about what is selected, 0 shows all, Escape selects none. Two maps of the same dots
    select the same ones when they are tied: ``link(one, other)``.

    Args:
        places: [dot, 2].
        texts: what stands behind each dot.
        names: what each is called.
        title: what is shown.
        subtitle: what is known of it.
        shades: [dot], by which dots are coloured: from the smallest to the largest; None for all alike.

    Attributes:
        selected: the selected dots, by their places in `places`, in order. Set by the user or by you;
            ``widget.observe(fn, "selected")`` calls you on a change.

    Raises:
        BadRequest: another number of texts or names than of dots; places that are no numbers.
    """

    _esm = bundle.module("dots")
    _css = bundle.style("dots")

    TOKEN_TRAIT = "selected"

    subtitle = traitlets.Unicode().tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    texts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    places = traitlets.Bytes().tag(sync=True)  # float32 [dot, 2]
    codes = traitlets.Bytes().tag(sync=True)  # uint8 [dot], of the palette
    selected = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(
        self,
        places: Any,
        texts: Sequence[str],
        names: Sequence[str],
        title: str = "",
        subtitle: str = "",
        shades: Any = None,
    ) -> None:
        where = arrays.as_float32(places)
        count = len(where)
        if where.ndim != 2 or where.shape[1] != 2 or not (count == len(texts) == len(names)):
            raise BadRequest(
                f"Places of shape {[*where.shape]} have {len(texts)} texts and {len(names)} names.",
                "Give [dot, 2], and of each dot one text and one name.",
            )
        self._places, self._texts = where, list(texts)
        self._codes = _codes(shades, count)
        super().__init__(
            title=title or "map",
            subtitle=subtitle,
            names=list(names),
            texts=[labels.written(text) for text in texts],
            places=where.tobytes(),
            codes=self._codes.tobytes(),
        )

    @traitlets.validate("selected")
    def _there(self, proposal: Any) -> list[int]:
        """Those that there are, each once, in order."""
        return sorted({int(dot) for dot in proposal["value"] if 0 <= dot < len(self._places)})

    @property
    def selected_texts(self) -> list[str]:
        """What stands behind the selected dots."""
        return [self._texts[dot] for dot in self.selected]

    @property
    def values(self) -> Values:
        """Where each dot is, [dot, coordinate]; the labels of dots are their names."""
        axes = {"dot": tuple(self.names), "coordinate": ("x", "y")}
        return Values(self._places.copy(), ("dot", "coordinate"), axes, self.title)

    @property
    def summary(self) -> str:
        chosen = f", {len(self.selected):,} selected" if self.selected else ""
        return f"{numbers.plural(len(self._places), 'dot')}{chosen}"

    def still(self) -> str:
        where = self._places.astype(float)
        some = np.linspace(0, len(where) - 1, min(_MOST, len(where))).round().astype(int)
        low, high = (where.min(0), where.max(0)) if len(where) else (np.zeros(2), np.ones(2))
        room = np.array([svg.WIDTH - 2 * _MARGIN, HEIGHT - _TOP - _MARGIN])
        scale = (room / np.where(high > low, high - low, 1.0)).min()
        start = np.array([_MARGIN, _TOP]) + (room - (high - low) * scale) / 2
        marks = [
            svg.text(_MARGIN, 32, svg.shorten(self.title, 90), 15, bold=True),
            svg.text(_MARGIN, 52, self.subtitle, 12, colour=svg.SOFT),
        ]
        chosen = set(self.selected)
        for at in sorted({*some.tolist(), *chosen}, key=chosen.__contains__):
            x, y = start + (where[at] - low) * scale
            size, faint, ring = 2.4, 0.2 if chosen else 0.7, ""
            if at in chosen:
                size, faint, ring = 3.4, 1.0, f' stroke="{svg.INK}"'
            marks.append(
                f'<circle cx="{x:.1f}" cy="{HEIGHT + _TOP - _MARGIN - y:.1f}" r="{size}" '
                f'fill="{colours.css(int(self._codes[at]))}" fill-opacity="{faint}"{ring}/>'
            )
        return svg.figure(svg.document(marks, HEIGHT), self.title, self.subtitle)


def _codes(shades: Any, count: int) -> Any:
    """A colour code for each dot, uint8 [dot]."""
    if shades is None:
        return np.full(count, colours.ZERO + _STRONG, np.uint8)
    sizes = arrays.as_float32(shades).astype(float)
    low, high = float(sizes.min(initial=np.inf)), float(sizes.max(initial=-np.inf))
    part = (sizes - low) / (high - low) if high > low else np.full(count, 0.5)
    return (colours.ZERO + _FAINT + part * (_STRONG - _FAINT)).astype(np.uint8)
