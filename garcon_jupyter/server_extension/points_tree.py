"""The probe points of a server's model, for the tree.

They come from the catalog in the server's greeting. Whoever greets has a session; this one is left at once, so that
it neither counts as a client nor keeps anything. A catalog never changes while the server lives.
"""

from __future__ import annotations

from typing import Any

from garcon_jupyter.points import POINTS, Catalog, PointSpec
from garcon_jupyter.servers.server import Server
from garcon_jupyter.wire import protocol, transport

SESSION = "garcon points"


def catalog(server: Server) -> Catalog:
    """Points and parameters of a server's model.

    Raises:
        ServerGone: it does not answer.
        VersionMismatch: it runs another version of Garçon or Python.
    """
    channel = server.connect()
    try:
        me = protocol.client_facts()
        mine = {"session": None, "prefer": SESSION, "lasting": False}
        hello = channel.ask(protocol.HELLO, {**me, **mine})
        channel.ask(protocol.GOODBYE, {**me, "session": hello["session"]})
        found: Catalog = transport.unpack(hello, hello["buffers"])
        return found
    finally:
        channel.close()


def tree(points: Catalog) -> dict[str, Any]:
    """The rows of the table that a model has, by template: the browser fills in layers and experts.

    ``{"n_layers", "n_experts", "points": [{"template", "shape", "layers", "what", "lazy"}]}``, in the order of the
    forward pass; a shape has letters (b, p, n) where it depends on the tokens; ``layers`` is None for a point that is
    outside of the layers.
    """
    return {
        "n_layers": points.n_layers,
        "n_experts": points.n_experts,
        "points": [_row(points, spec) for spec in POINTS if spec.template not in points.refused],
    }


def _row(points: Catalog, spec: PointSpec) -> dict[str, Any]:
    inside = "{i}" in spec.template
    return {
        "template": spec.template,
        "shape": [x if points.size(x) is None else points.size(x) for x in spec.dims],
        "layers": list(points.layers.get(spec.template, ())) if inside else None,
        "what": spec.what,
        "lazy": spec.lazy,
    }
