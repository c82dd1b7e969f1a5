"""What Garçon knows, as text: the one look of lists in notebooks and on the command line."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.amounts import sized
from garcon_jupyter.client.probes import Probe
from garcon_jupyter.connection.connection import Endpoint
from garcon_jupyter.errors import GarconError
from garcon_jupyter.points import (
    MODULE_PREFIX,
    PARAMETERS,
    POINTS,
    Address,
    Catalog,
    ParameterSpec,
    PointSpec,
    parse_parameter,
)
from garcon_jupyter.servers.fleet_files import FleetFile
from garcon_jupyter.servers.server import Server, log_file, unchecked, why_gone

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client
    from garcon_jupyter.client.resuming import Session

INDENT = "  "


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Rows as left-aligned columns; the last one is as wide as it likes."""
    table = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in table
    )
    return "\n".join(line.rstrip() for line in lines)


def spans(numbers: Sequence[int]) -> str:
    """``0-3, 5`` of [0, 1, 2, 3, 5]."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


# -- servers -------------------------------------------------------------------------------------


def degrees(facts: dict[str, Any]) -> str:
    """How a server's model is cut."""
    cut = [f"{word}={n}" for word, n in facts["degrees"].items() if n > 1]
    return " ".join(cut) or "one process"


def model_line(facts: dict[str, Any]) -> str:
    """A served model in one line."""
    model = facts["model"]
    device = facts["ranks"][0]["device"].partition(":")[0]
    parameters = f"{model['parameters']:,} parameters"
    return f"{model['architecture']}, {parameters}, {model['dtype']}, {degrees(facts)} on {device}"


def servers(found: Sequence[Server], fleets: Sequence[FleetFile] = ()) -> str:
    """Running servers, one a line; those of a fleet below it, in its order."""
    if not found:
        return "No server runs. Launch one: garcon launch smollm2, or %garcon launch in a notebook."
    blocks: dict[str, list[tuple[str, ...]]] = {}
    members: set[str] = set()
    for fleet in fleets:
        if living := fleet.living(found):
            members |= {server.name for server in living}
            count = len(fleet.members)
            counted = (
                f"fleet, {count} in turn"
                if fleet.in_turn
                else f"fleet, {len(living)} of {count} run"
            )
            blocks[fleet.name] = [(fleet.name, counted, "", "", "")]
            blocks[fleet.name] += [_server_row(server, INDENT) for server in living]
    for server in found:
        if server.name not in members:  # a server may have the name of a fleet
            blocks.setdefault(server.name, []).insert(0, _server_row(server))
    rows = [row for _, block in sorted(blocks.items()) for row in block]
    return columns([("NAME", "MODEL", "CUT", "PID", "PATH"), *rows])


def _server_row(server: Server, indent: str = "") -> tuple[str, ...]:
    return (
        indent + server.name,
        " ".join(filter(None, (*_kind(server.facts["model"]), unchecked(server.facts)))),
        degrees(server.facts),
        "starts anew" if server.facts.get("restarting") else str(server.facts["pid"]),
        server.facts["path"],
    )


def _kind(model: dict[str, Any]) -> tuple[str, str]:
    return model["architecture"], model["dtype"]


def status(server: Endpoint, told: dict[str, Any]) -> str:
    """What a server does, who is there and what it uses."""
    idle = told["idle_left"]
    rows = [
        ("model", model_line(server.facts)),
        ("path", server.facts["path"]),
        *([("weights", told["weights"])] if _exchanged(server, told) else []),
        ("running", _work(told["running"]) if told["running"] else "nothing"),
        ("waiting", "; ".join(map(_work, told["waiting"])) or "nothing"),
        *(("check", said) for said in _check(server.facts["model"])),
        *(("note", note) for note in server.facts["model"].get("notes", ())),
        *(
            ("adapter", f"{name}: {told}")
            for name, told in server.facts["model"].get("adapters", {}).items()
        ),
        ("certificate", _certificate(told.get("certificate"))),
        ("ends", "never by itself" if idle is None else f"after {duration(idle)} without requests"),
    ]
    rows += [
        ("client", f"{c['user']} in session {c['session']!r}, process {c['pid']} on {c['host']}")
        for c in told["clients"]
    ]
    several = len({rank.get("host") for rank in told["ranks"]}) > 1
    rows += [(f"rank {rank['rank']}", _rank(rank, several)) for rank in told["ranks"]]
    return f"{server.name}\n" + _indented(columns(rows))


def _exchanged(server: Endpoint, told: dict[str, Any]) -> bool:
    """Whether a server has other weights than it was launched with."""
    return told.get("weights") not in (None, server.facts["path"])


def _check(model: dict[str, Any]) -> list[str]:
    """What the check at launch came to; a server of an earlier version, and one that is unchecked, has no such row."""
    check = model.get("check") or {"outcome": "unchecked"}
    if check["outcome"] == "unchecked":  # its note says it
        return []
    return [f"{check['said']}, in {check['seconds']:.2f} s" if check["seconds"] else check["said"]]


def _certificate(kept: dict[str, Any] | None) -> str:
    """The certificate that a server keeps, in a line."""
    return f"{kept['id']}: {kept['summary']}" if kept else "none; %garcon certify makes one"


def _work(item: dict[str, Any]) -> str:
    return f"{item['kind']} of session {item['session']!r}, {duration(item['seconds'])}"


def _rank(rank: dict[str, Any], say_host: bool) -> str:
    memory = f", uses {sized(rank['memory'])}" if rank.get("memory") else ""
    layers = f", layers {spans(rank['layers'])}" if rank.get("layers") else ""
    host = f" on {rank['host']}" if say_host else ""
    return f"{rank['device']}, process {rank['pid']}{host}{layers}{memory}"


def pending(requests: Sequence[dict[str, Any]]) -> str:
    """The requests that a session left behind."""
    if not requests:
        return "No request of this session is unfinished or unread."
    rows = [("REQUEST", "KIND", "STATE", "SINCE")]
    for item in requests:
        since = time.strftime("%H:%M:%S", time.localtime(item["since"]))
        rows.append((item["request"], item["kind"], item["state"], since))
    return (
        f"{columns(rows)}\n%garcon result REQUEST waits for one and shows what it printed; "
        "%garcon cancel REQUEST stops it."
    )


def sessions(found: Sequence[Session]) -> str:
    """The sessions of servers, one a line."""
    if not found:
        return "There are no sessions."
    rows = [("SESSION", "SERVER", "USER", "HELD BY", "SINCE", "WHAT IS IN IT")]
    for one in found:
        holder = f"process {one.pid} on {one.host}" if one.held else "nobody"
        since = time.strftime("%H:%M:%S", time.localtime(one.since))
        rows.append(
            (one.name, one.server, one.user or "?", holder, since, one.contents or "nothing")
        )
    resume = "garcon.connect(SERVER, session=SESSION) goes on in one that nobody holds."
    return f"{columns(rows)}\n{resume}"


def log_tail(name: str, lines: int) -> str:
    """The last lines that a server of this name wrote, running or not.

    Raises:
        GarconError: no server of this name ever wrote any.
    """
    file = log_file(name)
    if not file.is_file():
        raise GarconError(
            f"No server {name!r} has written a log here.", "garcon list names those that run."
        )
    with file.open(errors="replace") as stream:
        tail = "".join(deque(stream, maxlen=max(lines, 0))).rstrip("\n")
    ended = why_gone(name)
    return f"{tail}\n(this server has ended: {ended})" if ended else tail


# -- points and parameters -----------------------------------------------------------------------


def points(catalog: Catalog | None, pattern: str | None = None) -> str:
    """The points of a model: all by template, or those that a pattern or a beginning selects.

    Without a catalog, the table that every model is measured by.
    """
    if catalog is None:
        return columns(
            [("POINT", "SHAPE", "WHAT IT IS")]
            + [(spec.template, ", ".join(spec.dims), spec.what) for spec in POINTS]
        )
    return _templates(catalog) if pattern is None else _selected(catalog, pattern)


def modules_by_name(catalog: Catalog) -> list[tuple[str, str]]:
    """Points of all modules: those whose names differ by their first number on one line, with the numbers."""
    found: dict[str, list[int]] = {}
    for path in catalog.paths:
        number = re.search(r"\.(\d+)(?=\.|$)", path)
        name = re.sub(r"\.(\d+)(?=\.|$)", ".*", path, count=1)
        found.setdefault(name, []).extend([int(number[1])] if number else [])
    return [(f"{MODULE_PREFIX}{name}.output", spans(numbers)) for name, numbers in found.items()]


def _modules(catalog: Catalog) -> str:
    """The points of a model that has none of the table."""
    rows = [("POINT", "FOR * OF"), *modules_by_name(catalog)]
    return (
        "No family file maps this architecture: its points are those of its modules, .output and .input.\n"
        f"For example: %%probe {catalog.a_module()}\n\n{columns(rows)}"
    )


def _templates(catalog: Catalog) -> str:
    if not catalog.mapped:
        return _modules(catalog)
    rows = [("POINT", "SHAPE", "LAYERS", "WHAT IT IS")]
    for spec in POINTS:
        if spec.template not in catalog.refused:
            layers = spans(catalog.layers.get(spec.template, ()))
            rows.append((spec.template, _shape(catalog, spec), layers, _what(spec)))
    text = columns(rows)
    if catalog.dictionaries:
        text += f"\n\nOf dictionaries:\n{_indented(columns(_of_dictionaries(catalog)))}"
    text += "\n\nBeside them any module: module:{dotted.path}.input and .output"
    if catalog.refused:
        reasons = _indented(columns(catalog.refused.items()))
        text += f"\n\nThis model does not have:\n{reasons}"
    return text


def _of_dictionaries(catalog: Catalog) -> list[tuple[str, str, str]]:
    return [
        (name, *_size_and_meaning(catalog, catalog.point(name)))
        for name in catalog.dictionary_names()
    ]


def _size_and_meaning(catalog: Catalog, address: Address) -> tuple[str, str]:
    spec = address.spec
    if isinstance(spec, PointSpec):
        return _shape(catalog, spec), _what(spec)
    return "as the module has it", "a module's own tensor"


def _selected(catalog: Catalog, pattern: str) -> str:
    names = [*catalog.names(), *catalog.dictionary_names()]
    beginning = [n for n in names if n.startswith(pattern.rstrip(".") + ".")]
    addresses: list[Address] = [catalog.point(name) for name in beginning]
    rows = [("POINT", "SHAPE", "WHAT IT IS")]
    for address in addresses or catalog.select(pattern):
        rows.append((address.name, *_size_and_meaning(catalog, address)))
    return columns(rows)


def _shape(catalog: Catalog, spec: PointSpec | ParameterSpec) -> str:
    return ", ".join(_length(catalog, dim) for dim in spec.dims)


def _length(catalog: Catalog, dim: str) -> str:
    """A letter's size, and products such as H*d."""
    sizes = [(letter, catalog.size(letter)) for letter in dim.split("*")]
    if all(size is not None for _, size in sizes):
        return str(math.prod(size or 0 for _, size in sizes))
    return "·".join(letter if size is None else str(size) for letter, size in sizes)


def _what(spec: PointSpec) -> str:
    notes = []
    if spec.split:
        notes.append(f"sharded along {spec.split}")
    if spec.lazy:
        notes.append("computed only when probed")
    return f"{spec.what} ({', '.join(notes)})" if notes else spec.what


def parameters(catalog: Catalog, pattern: str | None = None) -> str:
    """The parameters of a model by template, or those whose names begin with, or match, a pattern.

    Raises:
        UnknownParameter: none does; names the nearest ones.
    """
    if pattern is None:
        return _parameter_templates(catalog)
    regex = re.compile(re.escape(pattern).replace(r"\*", "[^.]*") + r"(\..*)?")
    names = [name for name in catalog.parameters if regex.fullmatch(name)]
    if not names:
        catalog.parameter(pattern)
    rows = [("PARAMETER", "SHAPE", "WHAT IT IS")]
    for name in names:
        address = parse_parameter(name)
        spec = address.spec if address else None
        if isinstance(spec, ParameterSpec):
            rows.append((name, _shape(catalog, spec), spec.what))
        else:
            rows.append((name, "", "the model's own name"))
    return columns(rows)


def _parameter_templates(catalog: Catalog) -> str:
    having: dict[str, list[int]] = {}
    others = []
    for name in catalog.parameters:
        address = parse_parameter(name)
        if address is None:
            others.append(name)
            continue
        layers = having.setdefault(address.template, [])
        if address.layer is not None and address.layer not in layers:
            layers.append(address.layer)
    rows = [("PARAMETER", "SHAPE [out, in]", "LAYERS", "WHAT IT IS")]
    for spec in PARAMETERS:
        if spec.template in having:
            shape = _shape(catalog, spec)
            rows.append((spec.template, shape, spans(having[spec.template]), spec.what))
    return "\n".join([columns(rows), *others])


# -- probes --------------------------------------------------------------------------------------


def attached(model: Client) -> str:
    """The probes that are attached to a model; those of one pattern on one line."""
    rows = _probe_rows(model.attached.values(), "")
    rows += _probe_rows(model.attached_once.values(), "next pass only")
    if not rows:
        return f"No probes are attached to {model.server.name}."
    return f"Attached to {model.server.name}:\n" + _indented(columns(rows))


def _probe_rows(chosen: Iterable[Probe], note: str) -> list[tuple[str, str, str]]:
    groups: dict[Any, list[Probe]] = {}
    for probe in chosen:
        spec = probe.spec
        options = (spec.grad, spec.sharded, spec.read_only, spec.name)
        groups.setdefault((spec.code.digest, options), []).append(probe)
    rows = []
    for group in groups.values():
        names = [probe.point for probe in group]
        shown = names if len(names) <= 3 else [names[0], "…", f"{names[-1]} ({len(names)} points)"]
        rows.append((" ".join(shown), group[0].spec.code.name, probe_notes(group[0], note)))
    return rows


def probe_notes(probe: Probe, note: str = "") -> str:
    """A probe's options and what it captured, with the bytes that travel."""
    spec = probe.spec
    words = [word for word in ("grad", "sharded", "read_only") if getattr(spec, word)]
    words += [f"name={spec.name}"] if spec.name else []
    words += [note] if note else []
    if spec.code.captured:
        captured = ", ".join(f"{name} ({nbytes:,} bytes)" for name, nbytes in spec.code.captured)
        words.append(f"captures {captured}")
    return "; ".join(words)


def _indented(text: str) -> str:
    return "\n".join(INDENT + line for line in text.splitlines())
