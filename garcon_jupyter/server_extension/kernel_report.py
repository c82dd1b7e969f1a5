"""What a notebook's kernel tells the side bar.

The side bar sees servers by itself; which of them this notebook is connected to, what is attached and what was
recorded, only its kernel knows. The browser asks for it by a silent execution, between two cells: no number is
counted, nothing is printed, and a busy kernel is not asked.

Nor may asking wait, for the model may be busy with somebody else's request. So :func:`told` says what is known, and
where recordings may have changed since, a thread fetches their table of contents meanwhile, once; the answer then
says that it is not current, and the browser asks again.
"""

from __future__ import annotations

import json
import secrets
import threading
import weakref
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from garcon_jupyter import imported
from garcon_jupyter.client.recordings import Recordings
from garcon_jupyter.connection import background, prints
from garcon_jupyter.errors import GarconError
from garcon_jupyter.libraries import side_threads
from garcon_jupyter.model import VARIABLE, RemoteModel
from garcon_jupyter.wire import requests as wire


class Told:
    """An answer: its ``repr`` is JSON, which is how it comes through a user expression."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    def __repr__(self) -> str:
        return json.dumps(self.content)


def told(shell: Any = None) -> Told:
    """What the side bar shows of this notebook. Never waits for a server.

    Returns:
        ``magics``: whether they are loaded; ``model``: of the variable ``rmodel``, or None, with ``server``, its
        ``supervisor`` and ``session``; ``probes``: those attached; ``dictionaries``: those loaded beside the model, as far as this
        notebook knows, with their points; ``recordings``: their table of contents; ``current``: whether that is the latest.
    """
    if shell is None:
        shell = imported.shell()
    model = shell.user_ns.get(VARIABLE)
    content: dict[str, Any] = {
        "magics": "probe" in shell.magics_manager.magics["cell"],
        "model": None,
        "probes": [],
        "dictionaries": [],
        "recordings": [],
        "current": True,
    }
    if isinstance(model, RemoteModel) and not model.closed:
        recordings, current = _contents(model)
        content |= {
            "model": {
                "server": model.server.name,
                "supervisor": model.facts["supervisor"],
                "session": model.session,
            },
            "probes": _probes(model),
            "dictionaries": _dictionaries(model),
            "recordings": recordings,
            "current": current,
        }
    return Told(content)


def _probes(model: RemoteModel) -> list[dict[str, Any]]:
    chosen = [(probe, False) for probe in model.attached.values()]
    chosen += [(probe, True) for probe in model.attached_once.values()]
    return [
        {
            "point": probe.point,
            "name": probe.spec.name,
            "grad": probe.spec.grad,
            "once": once,
            "function": probe.spec.code.name,
        }
        for probe, once in chosen
    ]


def _dictionaries(model: RemoteModel) -> list[dict[str, Any]]:
    catalog = model.catalog

    def row(name: str) -> dict[str, Any]:
        address = catalog.point(name)
        what = address.spec.what if address.spec else ""
        return {"point": name, "shape": [*catalog.shape(address)], "what": what}

    return [
        {
            "name": each.name,
            "kind": each.layout,
            "latents": each.latents,
            "where": each.where,
            "bytes": each.nbytes or None,
            "formula": each.formula,
            "path": each.path,
            "points": [row(name) for name in each.names()],
        }
        for each in tuple(catalog.dictionaries.values())
    ]


# -- recordings ----------------------------------------------------------------------------------


@dataclass
class _Known:
    """The table of contents of a connection's recordings, as of so many requests."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    requests: int = -1
    thread: threading.Thread | None = None


_KNOWN: weakref.WeakKeyDictionary[RemoteModel, _Known] = weakref.WeakKeyDictionary()


def _contents(model: RemoteModel) -> tuple[list[dict[str, Any]], bool]:
    """What is known of the recordings, and whether it is the latest."""
    known = _KNOWN.setdefault(model, _Known())
    if known.requests == model.requests:
        return known.rows, True
    if known.thread is None or not known.thread.is_alive():
        look = partial(_look, model, known)
        known.thread = side_threads.start("garcon side bar", look, stop=_not_at_all)
    return known.rows, False


def _not_at_all() -> None:
    """One question is soon answered."""


def _look(model: RemoteModel, known: _Known) -> None:
    """Fetch the table of contents, behind what persons run. It counts as a request, but only ever follows one of
    the user's."""
    requests = model.requests
    about = {"session": model.session, "kind": "snapshot", "behind": True}
    snapshot = wire.Snapshot(number=secrets.randbits(62))
    snapshot.session = model.session
    try:
        with background.behind():
            index = model._lines.here().request(about, snapshot, prints.plain)
    except (GarconError, OSError):
        known.rows = []  # the server has gone, and the recordings with it
    else:
        Recordings(model, index, lazy=True)  # whose end releases the snapshot
        known.rows = [
            {"point": point, "name": name, "attributes": _attributes(attributes)}
            for (point, name), attributes in index.contexts.items()
        ]
    known.requests = requests


def _attributes(saved: dict[str, wire.AttributeInfo]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "kind": info.kind,
            "shape": None if info.shape is None else list(info.shape),
            "dtype": info.dtype,
            "preview": info.preview,
        }
        for name, info in saved.items()
    ]
