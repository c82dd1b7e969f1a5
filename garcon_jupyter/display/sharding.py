"""The picture of which rank holds what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from garcon_jupyter.widgets import ShardingPicture

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client


def sharding_picture(rmodel: Client) -> ShardingPicture:
    """Which rank holds which layers, heads and neurons, and how much memory it uses."""
    sizes = rmodel.catalog.sizes
    shared = {"heads": sizes.get("H", 0), "neurons": sizes.get("M", 0)}
    return ShardingPicture(
        rmodel.server.name,
        rmodel.facts["degrees"],
        rmodel.status()["ranks"],
        {what: size for what, size in shared.items() if size},
    )
