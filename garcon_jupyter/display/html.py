"""How a model, its points and its recordings show themselves in a notebook: small tables.

They are made of what is known here already: nobody waits for a server to see what a variable is. They are plain HTML
in the page's own colours, so they are right on a light and a dark page, in a saved notebook, and where nothing runs.
Each ends with the line of code that looks further.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.amounts import sized
from garcon_jupyter.client.recordings import Handle, Key, Recording, Recordings
from garcon_jupyter.display.listings import degrees, modules_by_name, spans
from garcon_jupyter.points import POINTS, Address, Catalog, PointSpec, is_pattern

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client
    from garcon_jupyter.client.probes import ProbePoint, ProbePoints

MOST = 60
"""Most rows of a table; a line says how many more there are."""

LETTERS = {
    "b": "batch",
    "p": "position",
    "p_q": "query position",
    "p_k": "key position",
    "n": "tokens routed to the expert",
}
"""Letters of a shape that stay letters until the tokens are known."""

STYLE = (
    "<style>.garcon-table{font:12px/1.5 var(--jp-ui-font-family,system-ui,sans-serif);margin:4px 0}"
    ".garcon-table table{border-collapse:collapse;margin:6px 0;font-size:12px}"
    ".garcon-table th,.garcon-table td{padding:2px 14px 2px 0;text-align:left!important;vertical-align:top;"
    "background:none;border:0;border-bottom:1px solid rgba(128,128,128,.28);max-width:460px;white-space:normal}"
    ".garcon-table thead th,.garcon-table .soft{font-weight:400;opacity:.7}"
    ".garcon-table tr{background:none!important}"
    ".garcon-table code{font-size:11.5px;background:none;padding:0;white-space:nowrap}"
    ".garcon-table summary{cursor:pointer}</style>"
)


# -- what is shown -------------------------------------------------------------------------------


def model(rmodel: Client) -> str:
    """A connection: the model, its ranks, its points, and what to do first."""
    facts, catalog = rmodel.facts, rmodel.catalog
    served = facts["model"]
    said = [
        served["architecture"],
        f"{served['parameters'] / 1e6:,.0f} M parameters",
        served["dtype"],
        degrees(facts),
    ]
    several = len({rank.get("host") for rank in facts["ranks"]}) > 1
    place = ["host"] if several else []
    ranks = [
        [
            str(rank["rank"]),
            *(str(rank[word]) for word in place),
            rank["device"],
            spans(rank["layers"]) if rank.get("layers") else "none",
            sized(rank["parameter_bytes"]) if rank.get("parameter_bytes") else "",
        ]
        for rank in facts["ranks"]
    ]
    session = rmodel.session.rsplit("/", 1)[-1]  # a notebook's is named after its path
    sizes = ", ".join(f"{letter} {length:,}" for letter, length in catalog.sizes.items())
    head = (
        _heading(rmodel.server.name, " · ".join(said)),
        *(_soft(f"Note: {note}.") for note in served.get("notes", ())),
        *(_soft(f"Adapter {name}: {told}.") for name, told in served.get("adapters", {}).items()),
        _table(["rank", *place, "device", "layers", "parameters"], ranks),
    )
    if not catalog.mapped:
        example = catalog.a_module()
        return _framed(
            *head,
            _soft(f"Points of its modules; {sizes}. Session {session!r}."),
            _folded(f"{len(catalog.paths):,} modules", _modules(catalog)),
            _next(f'rmodel.show("{example}", "a text")', f"%%probe {example}", "%garcon points"),
        )
    example = "layers.*.attn.pattern" if "layers.{i}.attn.pattern" in catalog.layers else "logits"
    return _framed(
        *head,
        _soft(f"{catalog.n_layers} layers; {sizes}. Session {session!r}."),
        _folded(f"{len(rmodel.probe_points):,} probe points", _templates(catalog)),
        _next(f'rmodel.show("{example}", "a text")', "rmodel.card()", "%garcon points"),
    )


def point(chosen: ProbePoint) -> str:
    """A point, or what a pattern selects."""
    catalog, addresses = chosen._catalog, chosen.addresses
    if is_pattern(chosen.name):
        heading = _heading(chosen.name, f"{len(addresses):,} points")
        rows = [[_code(address.name), *_meaning(catalog, address)] for address in addresses]
        body = _table(["point", "shape", "what it is"], rows)
    else:
        shape, what = _meaning(catalog, addresses[0])
        heading = _heading(chosen.name, what)
        body = _table([], [["shape", shape], *_properties(addresses[0])])
    show = f'rmodel.show("{chosen.name}", "a text")'
    legend = _soft(_legend(catalog.shape(address) for address in addresses))
    return _framed(heading, body, legend, _next(show, f"%%probe {chosen.name}"))


def points(chosen: ProbePoints) -> str:
    """All points of a model, by template."""
    catalog = chosen._catalog
    if not catalog.mapped:
        return _framed(
            _heading(f"{len(catalog.paths):,} modules", "no family maps this architecture"),
            _modules(catalog),
            _next(f'rmodel.probe_points["{catalog.a_module()}"]', "%garcon points"),
        )
    return _framed(
        _heading(f"{len(chosen):,} probe points", f"over {catalog.n_layers} layers"),
        _templates(catalog),
        _next('rmodel.probe_points["layers.*.attn.z"]', "%garcon points"),
    )


def recordings(chosen: Recordings) -> str:
    """Everything that a session has recorded."""
    rows = [row for key in chosen for row in _saved(key, chosen[key])]
    total = sum(info.nbytes or 0 for key in chosen for info in chosen[key]._attributes.values())
    note = f"{sized(total)} on the server, none of it fetched by looking at this table"
    return _framed(
        _heading(f"{len(chosen):,} recordings", note if chosen else "no probe has saved anything"),
        _table(["point", "saved as", "shape", "dtype", "bytes", "look at it"], rows),
    )


def recording(chosen: Recording) -> str:
    """What was saved at one point."""
    ref = chosen._ref
    key: Key = ref.point if ref.name is None else (ref.point, ref.name)
    rows = [row[1:] for row in _saved(key, chosen)]
    named = f"by the probe {ref.name!r}" if ref.name else ""
    certified = f"; certificate {chosen._certificate}" if chosen._certificate else ""
    return _framed(
        _heading(ref.point, f"recording {named}".strip() + certified),
        _table(["saved as", "shape", "dtype", "bytes", "look at it"], rows),
    )


def handle(chosen: Handle) -> str:
    """A value that stays on the server."""
    info = chosen.info
    rows = [["kind", info.kind]]
    if info.shape is not None:
        rows += [
            ["shape", _times(info.shape)],
            ["dtype", info.dtype or ""],
            ["device", info.device or ""],
            ["bytes", _bytes(info.nbytes)],
        ]
    elif info.preview:
        rows.append(["value", info.preview])
    cut = "these are of the saved value, which is cut on the server when it is fetched"
    note = cut if chosen._steps else "on the server, not fetched"
    return _framed(
        _heading(f"{chosen._ref.point} · {chosen._attribute}", note),
        _table([], [[word, _escaped(value)] for word, value in rows]),
        _next("rmodel.show(handle)", "handle.fetch()", "handle[:, -10:].mean(0).fetch()"),
    )


# -- rows ----------------------------------------------------------------------------------------


def _saved(key: Key, chosen: Recording) -> list[list[str]]:
    """A row for each attribute of a recording."""
    written = _text(key) if isinstance(key, str) else f"({_text(key[0])}, {_text(key[1])})"
    name = key if isinstance(key, str) else f"{key[0]} of {key[1]}"
    rows = []
    for attribute, info in chosen._attributes.items():
        tensor = info.shape is not None
        which = f", attribute={_text(attribute)}" if len(chosen._attributes) > 1 else ""
        origin = f" (of {info.origin})" if info.origin else ""
        rows.append(
            [
                _code(name),
                _escaped(attribute + origin),
                _escaped(_times(info.shape) if info.shape is not None else info.preview),
                _escaped(info.dtype or info.kind),
                _bytes(info.nbytes),
                _code(f"rmodel.show({written}{which})") if tensor and info.shape else "",
            ]
        )
    return rows


def _templates(catalog: Catalog) -> str:
    rows = [
        [
            _code(spec.template),
            _letters(catalog, spec),
            spans(catalog.layers.get(spec.template, ())),
            _escaped(spec.what),
        ]
        for spec in POINTS
        if spec.template not in catalog.refused
    ]
    known = [
        Address(spec.template, spec) for spec in POINTS if spec.template not in catalog.refused
    ]
    legend = _legend(catalog.shape(address) for address in known)
    return _table(["point", "shape", "layers", "what it is"], rows) + _soft(legend)


def _modules(catalog: Catalog) -> str:
    """The modules of a model without points of the table, those of all blocks on one line."""
    rows = [[_code(point), _escaped(numbers)] for point, numbers in modules_by_name(catalog)]
    return _table(["point", "for * of"], rows)


def _meaning(catalog: Catalog, address: Address) -> tuple[str, str]:
    """Shape and meaning of a point."""
    spec = address.spec
    if not isinstance(spec, PointSpec):
        return "as the module has it", "a module's own tensor"
    return _letters(catalog, spec), _escaped(spec.what)


def _properties(address: Address) -> list[list[str]]:
    spec = address.spec
    if not isinstance(spec, PointSpec):
        return []
    rows = []
    if spec.split:
        rows.append(["tensor parallel", f"sharded along {spec.split}; a probe sees it whole"])
    if spec.lazy:
        rows.append(["computed", "only when probed"])
    if not spec.differentiable:
        rows.append(["gradient", "none"])
    return rows


def _letters(catalog: Catalog, spec: PointSpec) -> str:
    return _escaped(_times(catalog.shape(Address(spec.template, spec))))


def _legend(shapes: Iterable[Sequence[str | int]]) -> str:
    """What the letters mean that are left in shapes."""
    used = {letter for shape in shapes for letter in shape}
    return ", ".join(f"{letter} {what}" for letter, what in LETTERS.items() if letter in used)


def _times(shape: Sequence[Any]) -> str:
    return " × ".join(map(str, shape)) or "a scalar"


def _text(words: str) -> str:
    """A text as Python writes it, in double quotes."""
    return json.dumps(words, ensure_ascii=False)


def _bytes(nbytes: int | None) -> str:
    return "" if nbytes is None else sized(nbytes)


# -- HTML ----------------------------------------------------------------------------------------


def _framed(*parts: str) -> str:
    return f'<div class="garcon-table">{"".join(parts)}{STYLE}</div>'


def _heading(title: str, note: str) -> str:
    return f'<div><b>{_escaped(title)}</b> <span class="soft">{_escaped(note)}</span></div>'


def _soft(words: str) -> str:
    return f'<div class="soft">{_escaped(words)}</div>' if words else ""


def _next(*lines: str) -> str:
    """What to write into the next cell."""
    return f'<div><span class="soft">Go on with</span> {" · ".join(map(_code, lines))}</div>'


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{_escaped(summary)}</summary>{body}</details>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already; a table without a head has its names in the first column."""
    if not rows:
        return ""
    top = "".join(f"<th>{_escaped(name)}</th>" for name in head)
    lines = [
        "<tr>"
        + "".join(
            f'<td class="soft">{cell}</td>' if not head and place == 0 else f"<td>{cell}</td>"
            for place, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows[:MOST]
    ]
    more = _soft(f"and {len(rows) - MOST:,} more") if len(rows) > MOST else ""
    above = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f"<table>{above}<tbody>{''.join(lines)}</tbody></table>{more}"


def _code(words: str) -> str:
    return f"<code>{_escaped(words)}</code>"


def _escaped(words: str) -> str:
    return html.escape(str(words))
