"""``%%probe``: a cell becomes a probe, is attached, and may run at once."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.probes import MERGE_RULES, Probe
from garcon_jupyter.client.recordings import Recording
from garcon_jupyter.display import listings
from garcon_jupyter.errors import BadProbe, BadRequest, NoRecording
from garcon_jupyter.magics import arguments, cells
from garcon_jupyter.magics.cells import Cell
from garcon_jupyter.magics.current import Current
from garcon_jupyter.model import RemoteModel

if TYPE_CHECKING:
    from garcon_jupyter.recorders import Recorder

SHOWN = 4
"""Most points that ``--show`` draws: a picture each."""


class ProbeCell:
    """One run of a ``%%probe`` cell.

    Args:
        given: what its line says.
        cell: its body.
    """

    def __init__(self, current: Current, given: argparse.Namespace, cell: Cell) -> None:
        self._current, self._given, self._cell = current, given, cell

    def run(self) -> None:
        """Attach the probe, say what is attached now, and run and show it if asked to.

        Raises:
            BadProbe, BadRequest, UnknownPoint: nothing has changed.
        """
        given = self._given
        model = self._current.model()
        self._check_options(model)
        probes = self._probes(model)
        tokens = self._tokens(model)
        model.attach(*probes, once=given.once)
        print(listings.attached(model))
        if tokens is not None:
            model.forward(tokens, logits="none", adapter=self._adapter(model))
        if given.show:
            self._show(model, [probe.point for probe in probes])

    def _check_options(self, model: RemoteModel) -> None:
        given = self._given
        if given.grad and (given.on is not None or given.show):
            raise BadRequest(
                "--on and --show run forward, where there are no gradients.",
                "Attach with --grad, then call rmodel.backward(tokens, loss_fn).",
            )
        if given.adapter and given.on is None and not given.show:
            raise BadRequest(
                "--adapter is of a pass, and none is run.",
                'Add --on "a text", or name it where you run one: rmodel.forward(tokens, adapter=…).',
            )
        self._adapter(model)
        if given.show and given.on is None and model.last_tokens is None:
            raise BadRequest(
                "--show has nothing to show: no text was run yet.", 'Add --on "a text".'
            )

    def _probes(self, model: RemoteModel) -> list[Probe]:
        given, variables = self._given, self._current.variables
        points = [arguments.expanded(point, variables) for point in given.points]
        arguments.check_expanded(points)
        places = [model.probe_points[point] for point in points]
        function = self._recorder() or cells.function(self._cell, variables, self._current.hidden)
        options = {
            "grad": given.grad,
            "sharded": given.sharded,
            "merge": self._merge(),
            "read_only": given.read_only,
            "name": given.name and arguments.expanded(given.name, variables),
            "params": [arguments.expanded(name, variables) for name in given.params],
            "source": self._source(),
        }
        return [probe for place in places for probe in place.probes(function, **options)]

    def _adapter(self, model: RemoteModel) -> str | None:
        """The adapter of the pass; refused where the model has none of that name, before anything has changed."""
        given = self._given.adapter
        return given and model._adapter(arguments.expanded(given, self._current.variables))

    def _recorder(self) -> Recorder[Any] | None:
        """What ``--record`` asks for; it takes the place of the body."""
        words, left_out = self._given.record, self._given.without
        if not words and left_out:
            raise BadProbe("--without is for recorders.", "Give --record too.")
        if not words:
            return None
        from garcon_jupyter import recorders

        if cells.parse(self._cell).body:
            raise BadProbe("--record takes the place of the cell's body.", "Leave one of them out.")
        chosen = [recorders.from_word(word) for word in words]
        together = chosen[0] if len(chosen) == 1 else recorders.Together(chosen)
        return together.without(*(int(word) if word.isdigit() else word for word in left_out))

    def _merge(self) -> str | Callable[..., Any] | None:
        rule = self._given.merge
        variable: Callable[..., Any] | None = self._current.variables.get(rule)
        return variable if rule not in MERGE_RULES and callable(variable) else rule

    def _source(self) -> Recording | None:
        expression = self._given.source
        if expression is None:
            return None
        try:
            source = eval(expression, self._current.variables)
        except Exception as error:
            raise BadProbe(
                f"--source {expression} cannot be evaluated: {type(error).__name__}: {error}",
                'Give a recording, such as --source earlier["layers.1.mlp.out"].',
            ) from error
        if not isinstance(source, Recording):
            raise BadProbe(
                f"--source {expression} is a {type(source).__name__}, not a recording.",
                'Give a recording, such as --source earlier["layers.1.mlp.out"].',
            )
        return source

    def _tokens(self, model: RemoteModel) -> Any:
        """What to run forward on: the text or variable of ``--on``, or, to show, the last tokens."""
        given = self._given
        if given.on is None:
            return model.last_tokens if given.show else None
        text = self._current.variables.get(given.on, given.on)
        return model.encode(text) if isinstance(text, str) else text

    def _show(self, model: RemoteModel, points: list[str]) -> None:
        from IPython.display import display

        if picture := self._every_layer(model, points):
            display(picture)
            return
        for point in points[:SHOWN]:
            display(model.show((point, self._given.name) if self._given.name else point))
        if len(points) > SHOWN:
            more = len(points) - SHOWN
            print(f"{more} more: rmodel.show({points[SHOWN]!r}), ….")

    def _every_layer(self, model: RemoteModel, points: list[str]) -> Any:
        """The one picture of the attention of all layers, where that is what was recorded."""
        from garcon_jupyter.display.points import EVERY_PATTERN

        if self._given.name or len(points) < 2 or self._given.points != [EVERY_PATTERN]:
            return None
        with contextlib.suppress(BadRequest, NoRecording):  # something else was saved there
            return model.show(EVERY_PATTERN)
        return None
