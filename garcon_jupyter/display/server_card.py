"""The card of the server that a model is connected to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from garcon_jupyter.servers import control
from garcon_jupyter.servers.server import unchecked
from garcon_jupyter.widgets import ServerCard

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client


def server_card(rmodel: Client) -> ServerCard:
    """State, queue and clock of a server; its buttons do what ``%garcon`` does."""
    model, degrees = rmodel.facts["model"], rmodel.facts["degrees"]
    sharding = [f"{word}={number}" for word, number in degrees.items() if number > 1]
    facts = [
        model["architecture"],
        f"{model['parameters'] / 1e6:,.0f} M parameters",
        model["dtype"],
        ", ".join(sharding) or "one process",
        *filter(None, [unchecked(rmodel.facts)]),
    ]
    return ServerCard(
        rmodel.status,
        keep_alive=lambda: control.keep_alive(rmodel.server),
        stop=rmodel.shutdown,
        title=rmodel.server.name,
        facts=facts,
    )
