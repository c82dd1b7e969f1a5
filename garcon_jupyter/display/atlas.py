"""The pictures of an atlas: a unit's dashboard, and a page on which one is picked.

Both come from the files alone. Where a model is given, a text of one's own is run through it beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter import imported
from garcon_jupyter.atlas.files import Atlas, Example, Record
from garcon_jupyter.display import explanations
from garcon_jupyter.display.connectome import connections_of, key_of, unit_of
from garcon_jupyter.display.connectome import page as connections_page
from garcon_jupyter.display.neuron import runner
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.connectivity.connectome.files import connectome_beside
from garcon_jupyter.widgets import NeuronWidget
from garcon_jupyter.widgets.neuron import Page

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client
    from garcon_jupyter.experiments.connectivity.connectome.files import Connectome

FOUND = 50
"""Units that a search shows."""


def dashboard(record: Record) -> dict[str, Any]:
    """A record as :class:`garcon_jupyter.widgets.NeuronWidget` takes it."""
    arrays = record._atlas.index["arrays"]
    counts, edges = record.histogram
    fired = [n for n in range(len(counts) // 2 + 1, len(counts)) if counts[n]] or [len(counts) // 2]
    shown = slice(fired[0], fired[-1] + 1)
    largest = record.moments["high"]
    ends = [float(edge) for edge in edges[shown.start : shown.stop + 1]]
    made: dict[str, Any] = {
        "name": f"{record.point} · {record.label}",
        "tokens": record._atlas.tokens,
        "density": record.rate,
        "largest": largest,
        "histogram": {
            "counts": counts[shown].tolist(),
            "edges": [*ends[:-1], min(ends[-1], largest)],
        },
        "top": [_shown(example) for example in record.examples],
        "intervals": [
            {
                "low": part[0].value,
                "high": part[-1].value,
                "share": 1 / len(record.intervals),
                "examples": [_shown(example) for example in part],
            }
            for part in reversed(record.intervals)
            if part
        ],
    }
    if "logits_up" in arrays:
        made |= {"up": record.logits(), "down": record.logits(down=True)}
    if "correlated" in arrays:
        made["correlated"] = [(f"unit {unit}", value) for unit, value in record.correlated]
    if said := explanations.of_unit(record):
        made["said"] = said
    if "across" in arrays:
        made["correlated"] += [(f"{point} {unit}", value) for point, unit, value in record.across]
    return made


def _shown(example: Example) -> dict[str, Any]:
    return {"tokens": example.tokens, "values": example.values}


def show(
    record: Record,
    rmodel: Client | None = None,
    text: str = "",
    connectome: Connectome | None = None,
) -> NeuronWidget:
    """The dashboard of a unit. Its connections are links to the pages of other units.

    Args:
        rmodel: the model, for texts of one's own.
        text: the one that is tried first.
        connectome: of the model; by default the one that lies beside the atlas, if any.
    """
    if rmodel is not None:
        _refuse_transformed(record, "Show it without a model: record.show().")
    pages = _Pages(record._atlas, rmodel, _connectome(record._atlas, connectome))
    made, run = pages.page(record.point, record.unit)
    key = key_of(record.point, record.unit)
    name = "" if rmodel is None else f"{record.point} · unit {record.unit}"
    opened = None if pages.connectome is None else pages.open
    return NeuronWidget(made, run, text, name, key, opened)


def _connectome(atlas: Atlas, given: Connectome | None) -> Connectome | None:
    """The one that is given, or else lies beside; none for units that a function makes, which no weights tell of."""
    if given is not None or atlas.index.get("of"):
        return given
    return connectome_beside(atlas.path, atlas.index["model"])


@dataclass(frozen=True)
class _Pages:
    """The pages of all units that an atlas or a connectome knows."""

    atlas: Atlas
    rmodel: Client | None
    connectome: Connectome | None

    def open(self, key: str) -> Page:
        return self.page(*unit_of(key))

    def page(self, point: str, unit: int) -> Page:
        connectome = self.connectome
        if connectome is not None and point not in self.atlas.units:
            return connections_page(connectome, point, unit), None
        made = dashboard(self.atlas[point, unit])
        if connectome is not None and connectome.has(point, unit):
            made["connections"] = connections_of(connectome, point, unit)
        return made, None if self.rmodel is None else runner(self.rmodel, point, unit)


def _refuse_transformed(record: Record, remedy: str) -> None:
    """A unit that a function makes cannot be computed anew from the atlas alone, which has not got the function.

    Raises:
        BadRequest: it is one.
    """
    if record.of:
        raise BadRequest(f"{record.label} is made by {record.of}, which the atlas has not.", remedy)


def probe_cell(record: Record, text: str = "") -> str:
    """The source of a cell that probes the unit live; in a notebook it becomes the next cell."""
    import re

    _refuse_transformed(record, "Probe the point with that function.")
    if not text:
        text = "".join(record.examples[0].tokens) if record.examples else "Hello"
    line = " ".join(text.splitlines())  # options of a magic stand on one line
    quoted = '"' + re.sub(r'(["\\])', r"\\\1", line) + '"'
    head = f"%%probe {record.point} --name unit_{record.unit} --on {quoted}"
    source = f"{head}\nsave_ctx.values = tensor.flatten(2)[:, :, {record.unit}]"
    shell = imported.shell()
    if shell is not None:
        shell.set_next_input(source)
    return source


def browse(atlas: Atlas, rmodel: Client | None = None, connectome: Connectome | None = None) -> Any:
    """A page of an atlas: a point and a unit to choose, a token or words of explanations to search for, and the dashboard.

    Args:
        rmodel: the model, for texts of one's own.
        connectome: as of :func:`show`.
    """
    import ipywidgets

    point = ipywidgets.Dropdown(options=atlas.points, description="point")
    unit = ipywidgets.BoundedIntText(min=0, max=atlas.units[point.value] - 1, description="unit")
    token = ipywidgets.Text(description="token", placeholder="a token, or words that explain")
    found = ipywidgets.Dropdown(options=[("", None)], description="found")
    place = ipywidgets.Output()
    shown: list[NeuronWidget] = []
    beside = _connectome(atlas, connectome)

    def draw(change: Any = None) -> None:
        unit.max = atlas.units[point.value] - 1
        if shown and shown[0].key == key_of(point.value, unit.value):
            return  # a link led there
        place.clear_output(wait=True)
        with place:
            from IPython.display import display

            shown[:] = [show(atlas[point.value, unit.value], rmodel, connectome=beside)]
            shown[0].observe(follow, "key")
            display(shown[0])

    def follow(change: Any) -> None:
        """What is chosen above is what a link has led to, where the atlas has it."""
        name, number = unit_of(change["new"])
        if name in atlas.units:
            choose(name, number)

    def choose(name: str, number: int) -> None:
        point.unobserve(draw, "value")
        point.value = name
        unit.max = max(unit.max, number)
        point.observe(draw, "value")
        unit.value = number
        draw()

    def search(change: Any) -> None:
        records = atlas.search(token.value) if token.value.strip() else []
        names = [(f"{one.point} {one.unit}", (one.point, one.unit)) for one in records[:FOUND]]
        said = explanations.search(atlas, token.value)
        names += [
            (f"{one.point} {one.unit}: {one.text}", (one.point, one.unit)) for one in said[:FOUND]
        ]
        found.options = [(f"{len(records) + len(said):,} units", None), *names]

    def pick(change: Any) -> None:
        if change["new"] is not None:
            choose(*change["new"])

    point.observe(draw, "value")
    unit.observe(draw, "value")
    token.observe(search, "value")
    found.observe(pick, "value")
    draw()
    return ipywidgets.VBox([ipywidgets.HBox([point, unit]), ipywidgets.HBox([token, found]), place])
