"""Which architecture has which point: a section of ``docs/probe_points.md``, made from the family files.

Most families have most points of Llama. So the row of a family says what it lacks of these, the *usual* points, and what it
has besides. A second table says of each of the others who has it, and why the rest do not. Reasons have
numbers, as few sentences serve many families.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from transformers import AutoConfig

from docs.tables import table
from garcon_backend.models import families
from garcon_backend.models.family import Family
from garcon_jupyter.model_files.multimodal import WRAPPERS
from garcon_jupyter.points import POINTS

USUAL = "llama"
"""The family whose points are the usual ones."""

Answers = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]
"""Kinds of layers, and missing points with their reasons."""

LAYER = "layers.{i}."
TEMPLATES = tuple(spec.template for spec in POINTS)

OPENING = """\
## Which architecture has which point

Look for the `model_type` of your model's `config.json`, here or with `%garcon points`, which says it of your very model, layer
by layer. In these tables `{i}` and what stands before it is left out, and `attn.norm.*` is every point whose name begins with
`attn.norm.`.

The **usual points** are those of Llama: {usual}.

A family has all of them but those under *lacks*, with the number of the reason
(below), and what it *has besides*, in a model of its default configuration. *Layers* says what mixes their tokens; what belongs
to attention is in those that attend.

After *inside* stand multimodal checkpoints whose text part it is: the points are those of the text part, and what sees images
is never called, as a server is given text alone.

A model of any other architecture still loads, with `module:` points only. It attends by its own function, as transformers runs
it (sinks, sparse indices, biases by position and whatever it has), and its numbers are the reference's.
"""

UNUSUAL = """\
### Points beside the usual ones

Who has them, and the number of the reason why the others do not.
"""

WHY_NOT = "### Why a point is not there\n"


@dataclass(frozen=True)
class Row:
    """One family, or those of its model types that have the same points.

    Attributes:
        name: of the family.
        model_types: of the configurations it serves.
        what: it is, a sentence.
        kinds: of its layers, each once.
        missing: template → why there is no such point.
    """

    name: str
    model_types: tuple[str, ...]
    what: str
    kinds: tuple[str, ...]
    missing: Mapping[str, str]


@dataclass
class Reasons:
    """Sentences by number, in the order in which they were first said."""

    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, why: str) -> int:
        return self.numbers.setdefault(why, len(self.numbers) + 1)


def section() -> str:
    """The section of the families that there are."""
    return written(rows_of(families.FAMILIES.values(), subjects()))


def subjects() -> dict[str, str]:
    """What each family is, by its name: the first paragraph of its file."""
    found = {}
    for module in pkgutil.iter_modules(families.__path__):
        file = importlib.import_module(f"{families.__name__}.{module.name}")
        if isinstance(family := getattr(file, "FAMILY", None), Family):
            found[family.name] = " ".join((file.__doc__ or "").partition("\n\n")[0].split())
    return found


def rows_of(known: Iterable[Family], what: Mapping[str, str]) -> list[Row]:
    """The rows of these families, by name."""
    rows: list[Row] = []
    for family in sorted({f.name: f for f in known}.values(), key=lambda f: f.name):
        alike: dict[Answers, list[str]] = {}
        for model_type in family.model_types:
            alike.setdefault(_answers(family, model_type), []).append(model_type)
        for (kinds, missing), types in alike.items():
            said = what.get(family.name, "")
            rows.append(Row(family.name, tuple(types), said, kinds, dict(missing)))
    return rows


def _answers(family: Family, model_type: str) -> Answers:
    """Kinds of layers and missing points in a model of the default configuration."""
    config = AutoConfig.for_model(model_type)
    shaped = family.shaped(config) if family.shaped else family
    missing = {**shaped.refused, **shaped.lacks(config)}
    return tuple(dict.fromkeys(shaped.mixers(config))), tuple(sorted(missing.items()))


def usual_points(rows: Sequence[Row]) -> tuple[str, ...]:
    """Templates that Llama has."""
    llama = next(row for row in rows if row.name == USUAL)
    return tuple(template for template in TEMPLATES if template not in llama.missing)


def written(rows: Sequence[Row]) -> str:
    """The section of these rows."""
    usual, reasons = usual_points(rows), Reasons()
    first = [_family(row, usual, reasons) for row in rows]
    second = _unusual(rows, usual, reasons)
    return "\n".join(
        [
            OPENING.replace("{usual}", listed(usual)),
            table(
                ("Family", "`model_type`", "What it is", "Layers", "Lacks", "Has besides"), first
            ),
            UNUSUAL,
            table(("Points", "Families that have them", "Why others do not"), second),
            WHY_NOT,
            *(f"{number}. {why}" for why, number in reasons.numbers.items()),
            "",
        ]
    )


def _family(row: Row, usual: Collection[str], reasons: Reasons) -> tuple[str, ...]:
    by_reason: dict[str, list[str]] = {}
    for template in usual:
        if template in row.missing:
            by_reason.setdefault(row.missing[template], []).append(template)
    lacks = [f"{listed(t)} ({reasons.number(why)})" for why, t in by_reason.items()]
    besides = [t for t in TEMPLATES if t not in usual and t not in row.missing]
    return (
        row.name,
        _types(row.model_types),
        row.what,
        ", ".join(row.kinds),
        "; ".join(lacks),
        listed(besides),
    )


def _types(alone: Sequence[str]) -> str:
    """Model types of a family, and those of the multimodal models whose text part it is."""
    inside = [kind for kind, wrapper in WRAPPERS.items() if {*wrapper.texts} & {*alone}]
    said, wrapped = (", ".join(f"`{kind}`" for kind in kinds) for kinds in (alone, inside))
    return f"{said}; inside {wrapped}" if wrapped else said


def _unusual(
    rows: Sequence[Row], usual: Collection[str], reasons: Reasons
) -> list[tuple[str, str, str]]:
    """Rows of the second table; points that the same families lack for the same reasons share one."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for template in TEMPLATES:
        if template not in usual:
            why = tuple(row.missing.get(template, "") for row in rows)
            alike.setdefault(why, []).append(template)
    return [
        (listed(templates), _named(rows, why, "") or "none", _why(rows, why, reasons))
        for why, templates in alike.items()
    ]


def _named(rows: Sequence[Row], why: Sequence[str], wanted: str) -> str:
    """Names of the families whose reason is this one."""
    of = [row for row, said in zip(rows, why, strict=True) if said == wanted]
    return ", ".join(", ".join(row.model_types) if _split(rows, row) else row.name for row in of)


def _split(rows: Sequence[Row], row: Row) -> bool:
    """Whether the model types of a family stand in several rows, which then have their names."""
    return sum(other.name == row.name for other in rows) > 1


def _why(rows: Sequence[Row], why: Sequence[str], reasons: Reasons) -> str:
    """The numbers of all reasons, with those for whom each is; the most frequent one is that of all others."""
    counted = sorted({said for said in why if said}, key=lambda said: (-why.count(said), said))
    most, rest = counted[:1], counted[1:]
    parts = [f"({reasons.number(said)}) {_named(rows, why, said)}" for said in rest]
    return "; ".join(parts + [f"({reasons.number(said)}) all others" for said in most])


def listed(templates: Sequence[str]) -> str:
    """Names of points in a cell: ``attn.norm.*`` where all of these are meant."""
    left, names = list(templates), []
    while left:
        pattern = next((p for p in _prefixes(left[0]) if _below(p) <= set(left)), "")
        meant = _below(pattern) if pattern else {left[0]}
        names.append(f"`{short(pattern)}*`" if pattern else f"`{short(left[0])}`")
        left = [template for template in left if template not in meant]
    return ", ".join(names)


def short(template: str) -> str:
    """A point's name as these tables have it."""
    return template.removeprefix(LAYER)


def _prefixes(template: str) -> list[str]:
    """Beginnings of a name that end with a dot, the shortest first, under which more than one point is."""
    parts = short(template).split(".")
    start = template.removesuffix(short(template))
    found = [start + ".".join(parts[:count]) + "." for count in range(1, len(parts))]
    return [prefix for prefix in found if len(_below(prefix)) > 1]


def _below(prefix: str) -> set[str]:
    return {template for template in TEMPLATES if template.startswith(prefix)}
