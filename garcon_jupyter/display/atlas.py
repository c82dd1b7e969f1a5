"""The pictures of an atlas: a unit's dashboard, and a page on which one is picked.

Both come from the files alone. Where a model is given, a text of one's own is run through it beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from garcon_jupyter import imported
from garcon_jupyter.atlas.files import Atlas, Example, Record
from garcon_jupyter.display.neuron import neuron_picture
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import NeuronWidget

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

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
    if "across" in arrays:
        made["correlated"] += [(f"{point} {unit}", value) for point, unit, value in record.across]
    return made


def _shown(example: Example) -> dict[str, Any]:
    return {"tokens": example.tokens, "values": example.values}


def show(record: Record, rmodel: Client | None = None, text: str = "") -> NeuronWidget:
    """The dashboard of a unit.

    Args:
        rmodel: the model, for texts of one's own.
        text: the one that is tried first.
    """
    made = dashboard(record)
    if rmodel is None:
        return NeuronWidget(made)
    _refuse_transformed(record, "Show it without a model: record.show().")
    return neuron_picture(rmodel, record.point, record.unit, [], text, made)


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


def browse(atlas: Atlas, rmodel: Client | None = None) -> Any:
    """A page of an atlas: a point and a unit to choose, a token to search for, and the dashboard.

    Args:
        rmodel: the model, for texts of one's own.
    """
    import ipywidgets

    point = ipywidgets.Dropdown(options=atlas.points, description="point")
    unit = ipywidgets.BoundedIntText(min=0, max=atlas.units[point.value] - 1, description="unit")
    token = ipywidgets.Text(description="token", placeholder="its largest values are at …")
    found = ipywidgets.Dropdown(options=[("", None)], description="found")
    place = ipywidgets.Output()

    def draw(change: Any = None) -> None:
        unit.max = atlas.units[point.value] - 1
        place.clear_output(wait=True)
        with place:
            from IPython.display import display

            display(show(atlas[point.value, unit.value], rmodel))

    def search(change: Any) -> None:
        records = atlas.search(token.value) if token.value.strip() else []
        names = [(f"{one.point} {one.unit}", (one.point, one.unit)) for one in records[:FOUND]]
        found.options = [(f"{len(records):,} units", None), *names]

    def pick(change: Any) -> None:
        if change["new"] is not None:
            point.value, unit.value = change["new"]

    point.observe(draw, "value")
    unit.observe(draw, "value")
    token.observe(search, "value")
    found.observe(pick, "value")
    draw()
    return ipywidgets.VBox([ipywidgets.HBox([point, unit]), ipywidgets.HBox([token, found]), place])
