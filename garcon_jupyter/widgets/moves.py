"""What moved a neuron: which data when and how far, what their texts have in common, and which predictions change without it.

The picture takes plain numbers, so that it can be drawn of any training; of a record :mod:`garcon_jupyter.display.training_record` makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import traitlets

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays, bundle, labels, numbers, still_moves
from garcon_jupyter.widgets.picture import Picture
from garcon_jupyter.widgets.values import Values

MOST = 400
"""Moves that are shown; of more, the largest."""


@dataclass(frozen=True)
class Flip:
    """A token whose predictions change when the neuron is held.

    Attributes:
        token: the token.
        said: how often, in words.
        places: some of them: (the text before, what is predicted with the neuron, without it, the text after).
    """

    token: str
    said: str
    places: Sequence[tuple[str, str, str, str]] = ()


@dataclass(frozen=True)
class NeuronMoves:
    """What is drawn.

    Attributes:
        moves: [move, 2]: the step, and the gradient, with its sign.
        data: of each move, the number of the datum.
        texts: the tokens of each datum, by its number; may lack some.
        tokens: those that are notable: (token, how many times as frequent as elsewhere, what else is said).
        flips: what changes without the neuron.
        subtitle: what is known of it.
        live: whether there may be more soon.
    """

    moves: Any
    data: Sequence[int]
    texts: Mapping[int, Sequence[str]]
    tokens: Sequence[tuple[str, float, str]] = ()
    flips: Sequence[Flip] = field(default=())
    subtitle: str = ""
    live: bool = False


class MovesWidget(Picture):
    """A neuron's timeline: point at a move for its text, click to keep it; arrow keys walk through time, Escape leaves.

    Below it the tokens that its data have more often than others, the data themselves, coloured by gradient, with these tokens marked, and what
    changes where the neuron is held.

    Args:
        shown: what is drawn.
        title: what is shown.
        load: gives it anew while it is live; it is asked every two seconds while the widget is in sight.

    Attributes:
        selected: the selected move, by its place in time; −1 for none.

    Raises:
        BadRequest: moves that are no numbers, or not as many data as moves.
    """

    _esm = bundle.module("moves")
    _css = bundle.style("moves")

    subtitle = traitlets.Unicode().tag(sync=True)
    moves = traitlets.Bytes().tag(sync=True)  # float32 [move, 3]: step, gradient, place of its text
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    texts: Any = traitlets.List().tag(sync=True)
    tokens: Any = traitlets.List().tag(sync=True)
    flips: Any = traitlets.List().tag(sync=True)
    limit = traitlets.Float(1.0).tag(sync=True)
    selected = traitlets.Int(-1).tag(sync=True)
    live = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        shown: NeuronMoves,
        title: str = "neuron",
        load: Callable[[], NeuronMoves] | None = None,
    ) -> None:
        self._load = load
        super().__init__(title=title, **self._packed(shown))
        self.on_msg(self._hear)

    def _packed(self, shown: NeuronMoves) -> dict[str, Any]:
        """The traits of what is drawn."""
        given = arrays.as_float32(shown.moves).reshape(-1, 2)
        if len(given) != len(shown.data):
            raise BadRequest(
                f"There are {len(given)} moves of {len(shown.data)} data.", "Give a datum for each."
            )
        largest = np.sort(np.argsort(-np.abs(given[:, 1]), kind="stable")[:MOST])
        kept = largest[np.argsort(given[largest, 0], kind="stable")]
        data = [int(shown.data[at]) for at in kept]
        ids = [each for each in dict.fromkeys(data) if shown.texts.get(each)]
        at = {each: number for number, each in enumerate(ids)}
        where = np.array([at.get(each, -1) for each in data], np.float32)
        self._moves = given[kept]
        self._shown = shown
        names = [
            f"step {int(step)}, datum {each}"
            for (step, _), each in zip(self._moves.tolist(), data, strict=True)
        ]
        more = f" · the {MOST} largest are shown" if len(given) > MOST else ""
        return {
            "subtitle": shown.subtitle + more,
            "moves": np.column_stack([self._moves, where]).astype(np.float32).tobytes(),
            "names": names,
            "texts": [[labels.written(each) for each in shown.texts[one]] for one in ids],
            "tokens": [[labels.written(t), float(lift), said] for t, lift, said in shown.tokens],
            "flips": [
                {"token": one.token, "said": one.said, "places": [list(p) for p in one.places]}
                for one in shown.flips
            ],
            "limit": float(np.abs(self._moves[:, 1]).max(initial=0.0)) or 1.0,
            "live": shown.live and self._load is not None,
        }

    @traitlets.validate("selected")
    def _there(self, proposal: Any) -> int:
        value = int(proposal["value"])
        return value if 0 <= value < len(self.names) else -1

    def refresh(self) -> None:
        """Draw what there is now, beside the kernel."""
        load = self._load
        if load is not None:
            self.later("look", lambda: self._redraw(load()))

    def _redraw(self, shown: NeuronMoves) -> None:
        chosen = self.names[self.selected] if self.selected >= 0 else None
        packed = self._packed(shown)
        with self.hold_sync():
            for name, value in packed.items():
                setattr(self, name, value)
            self.selected = packed["names"].index(chosen) if chosen in packed["names"] else -1

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if isinstance(content, dict) and content.get("do") == "look":
            self.refresh()

    @property
    def values(self) -> Values:
        """When each move was and how large, [move, what]."""
        axes = {"move": tuple(self.names), "what": ("step", "gradient")}
        return Values(self._moves.copy(), ("move", "what"), axes, self.title)

    @property
    def summary(self) -> str:
        return numbers.plural(len(self.names), "move")

    def still(self) -> str:
        table = np.frombuffer(self.moves, np.float32).reshape(-1, 3)
        parts = (self.names, self.texts, self.tokens, self.flips, self.limit, self.selected)
        drawn = still_moves.MovesStill(self.title, self.subtitle, table, *parts)
        return still_moves.moves(drawn)
