"""The connections of a unit on its page: each partner a link to its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from garcon_jupyter.amounts import share
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.connectivity.connectome.tables import TABLES
from garcon_jupyter.points import parse_point
from garcon_jupyter.widgets import NeuronWidget

if TYPE_CHECKING:
    from garcon_jupyter.experiments.connectivity.connectome.files import Connectome, UnitConnection


def key_of(point: str, unit: int) -> str:
    """By which pages of units name each other: the point and the number."""
    return f"{point} {unit}"


def unit_of(key: str) -> tuple[str, int]:
    """The point and the number of a key.

    Raises:
        BadRequest: it is none.
    """
    point, _, unit = key.rpartition(" ")
    if not point or not unit.isdecimal():
        raise BadRequest(f"{key!r} is no unit.", "Write its point and its number.")
    return point, int(unit)


def connections_of(connectome: Connectome, point: str, unit: int) -> list[dict[str, Any]]:
    """Those of a unit, by kind, as :class:`garcon_jupyter.widgets.NeuronWidget` takes them."""
    found = connectome.unit(point, unit)
    return [
        {
            "name": TABLES[table].says,
            "said": f"{share(found.shares[table])} of all",
            "rows": [_row(one) for one in connections],
        }
        for table, connections in found.tables.items()
    ]


def _row(one: UnitConnection) -> tuple[str, float, str]:
    address = parse_point(one.point)
    if address is None or address.layer is None:
        return one.name, one.value, ""
    kind = "H" if ".attn." in one.point else "N"
    return f"L{address.layer} {kind}{one.unit}", one.value, key_of(one.point, one.unit)


def page(connectome: Connectome, point: str, unit: int) -> dict[str, Any]:
    """The page of a unit of which nothing but its connections is known."""
    named = connectome.unit(point, unit)
    kind = "head" if ".attn." in named.point else "unit"
    connections = connections_of(connectome, point, unit)
    return {"name": f"{named.point} · {kind} {unit}", "connections": connections}


def show(connectome: Connectome, point: str, unit: int) -> NeuronWidget:
    """The connections of a unit; a click on a partner shows those of the partner."""
    named = connectome.unit(point, unit)
    return NeuronWidget(
        page(connectome, point, unit),
        key=key_of(named.point, unit),
        open_page=lambda key: (page(connectome, *unit_of(key)), None),
    )
