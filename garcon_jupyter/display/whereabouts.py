"""Where the points of a model are and how they are computed there; and why it lacks the others."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator

from garcon_jupyter.display.listings import columns, points, spans
from garcon_jupyter.points import POINTS, Catalog, pattern_regex
from garcon_jupyter.points.dictionary_points import MARK

WHY = "where they are, how they are computed there, and why others are missing"
"""What the option of this name shows, as its helps say it."""

WIDTH = 110
"""Characters of a line at most, the template apart."""


def whereabouts(catalog: Catalog, pattern: str | None = None) -> str:
    """Where points are and how they are computed, by template, and why the model lacks others.

    Sinks, orders of routers, kinds of norms and multipliers are told here: what a value means depends on them.

    Args:
        catalog: of the model.
        pattern: of these points, a name, a template or a beginning of one; None for all.

    Raises:
        UnknownPoint: there is no such point at all.
    """
    if not catalog.mapped:
        return points(catalog, pattern)
    chosen = list(_chosen(catalog, pattern))
    there = [(t, catalog.places[t]) for t in chosen if t in catalog.places]
    there += _of_dictionaries(catalog, pattern)
    lacking = [(t, catalog.refused[t]) for t in chosen if t in catalog.refused]
    parts = [_kinds(catalog)] if pattern is None else []
    if there:
        parts.append(columns([("POINT", "WHERE IT IS"), *_wrapped(there)]))
    if lacking:
        parts.append("\n".join(["This model does not have:", columns(_wrapped(lacking))]))
    return "\n\n".join(filter(None, parts))


def _of_dictionaries(catalog: Catalog, pattern: str | None) -> list[tuple[str, str]]:
    """Points of dictionaries that a pattern means, and what they are."""
    if not catalog.dictionaries:
        return []
    names = catalog.dictionary_names() if pattern is None else []
    if pattern is not None and f".{MARK}." in pattern:
        names = [address.name for address in catalog.select(pattern)]
    return [(name, catalog.place(catalog.point(name))) for name in names]


def _chosen(catalog: Catalog, pattern: str | None) -> Iterator[str]:
    """Templates that a pattern means, whether the model has them or not."""
    templates = [spec.template for spec in POINTS]
    if pattern is None:
        yield from templates
        return
    of_one = re.sub(r"^layers\.[^.]+", "layers.{i}", pattern.rstrip("."))
    of_one = re.sub(r"\.experts\.[^.]+", ".experts.{e}", of_one)
    found = [t for t in templates if t == of_one or t.startswith(f"{of_one}.")]
    if not found and "*" in of_one:
        regex = pattern_regex(_of_the_first(of_one))
        found = [t for t in templates if regex.fullmatch(_of_the_first(t))]
    if not found:
        catalog.select(pattern)  # the error that names the nearest
    yield from found


def _of_the_first(template: str) -> str:
    return template.replace("{i}", "0").replace("{e}", "0")


def _kinds(catalog: Catalog) -> str:
    """Which layers are of which kind, where they are not all of one."""
    found: dict[str, list[int]] = {}
    for layer, kind in enumerate(catalog.kinds):
        found.setdefault(kind, []).append(layer)
    if len(found) < 2:
        return f"All {catalog.n_layers} layers: {next(iter(found))}." if found else ""
    rows = [(kind, spans(layers)) for kind, layers in found.items()]
    return columns([("KIND OF LAYER", "LAYERS"), *rows])


def _wrapped(rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, text in rows:
        first, *rest = textwrap.wrap(text, WIDTH) or [""]
        yield name, first
        yield from (("", line) for line in rest)
