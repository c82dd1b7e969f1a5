"""The dashboard of a unit of a served model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.connection.background import answering
from garcon_jupyter.experiments.clean_passes import one_text
from garcon_jupyter.experiments.neurons import check_unit, unit_on_texts, values_of_unit
from garcon_jupyter.widgets import NeuronWidget, neuron_record
from garcon_jupyter.widgets.neuron import Try

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client


def neuron_picture(
    rmodel: Client,
    point: str,
    unit: int,
    texts: Any,
    text: str = "",
    record: Mapping[str, Any] | None = None,
) -> NeuronWidget:
    """The dashboard of one unit; `record` of an atlas, else one made of `texts`."""
    made = record if record is not None else _record(rmodel, point, unit, texts)
    return NeuronWidget(made, runner(rmodel, point, unit), text, f"{point} · unit {unit}")


def runner(rmodel: Client, point: str, unit: int) -> Try:
    """What runs a text, and gives its tokens and the unit's value at each.

    Raises:
        UnknownName, BadRequest: the model has no such unit.
    """
    check_unit(rmodel, point, unit)

    def run(own: str) -> tuple[Sequence[str], Any]:
        tokens = one_text(rmodel, own)
        values, _ = values_of_unit(rmodel, point, unit, tokens)
        return rmodel.token_strings(tokens)[0], values[0]

    found: Try = answering(run)
    return found


def _record(rmodel: Client, point: str, unit: int, texts: Any) -> dict[str, Any]:
    found = unit_on_texts(rmodel, point, unit, texts)
    return neuron_record(
        found.values, found.strings, point, logits=found.logits, correlated=found.correlated
    )
