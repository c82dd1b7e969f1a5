"""The grammar of names.

A *template* has holes (``layers.{i}.attn.q``); an *address* fills them (``layers.4.attn.q``); a *pattern*
selects many addresses (``layers.*.attn.q``, ``layers.4-7.attn.z``, ``layers.{4,8}.resid_post``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from garcon_jupyter.errors import UnknownName
from garcon_jupyter.points.dictionary_points import taken_apart
from garcon_jupyter.points.parameters import PARAMETERS, ParameterSpec
from garcon_jupyter.points.table import POINTS, PointSpec

MODULE_PREFIX = "module:"
MODULE_SIDES = ("input", "output")
_HOLE = re.compile(r"\{([ie])\}")


def template_regex(template: str) -> re.Pattern[str]:
    """The pattern of all addresses of a template, with groups ``i`` and ``e``."""
    return re.compile(_HOLE.sub(r"(?P<\1>0|[1-9][0-9]*)", re.sub(r"([.])", r"\\\1", template)))


_POINT_BY_TEMPLATE = {spec.template: spec for spec in POINTS}
_POINT_REGEXES = [(template_regex(spec.template), spec) for spec in POINTS]
_PARAMETER_REGEXES = [(template_regex(spec.template), spec) for spec in PARAMETERS]


@dataclass(frozen=True)
class Address:
    """A point or parameter of one model: its name, its row of the table, its layer and expert.

    Attributes:
        dictionary: the name of the dictionary whose value it is; "" of the model's own points.
    """

    name: str
    spec: PointSpec | ParameterSpec | None
    layer: int | None = None
    expert: int | None = None
    dictionary: str = ""

    @property
    def template(self) -> str:
        """The row of the table that it is of, with holes; of a module, the name itself."""
        return self.spec.template if self.spec else self.name


def fill(template: str, layer: int | None = None, expert: int | None = None) -> str:
    """The address that a template gives for one layer (and expert)."""
    return template.replace("{i}", str(layer)).replace("{e}", str(expert))


def parse_point(name: str) -> Address | None:
    """The address of a point by the grammar alone, or None where the grammar has no such name."""
    if name.startswith(MODULE_PREFIX):
        path = name[len(MODULE_PREFIX) :]
        stem, _, side = path.rpartition(".")
        return Address(name, None) if side in MODULE_SIDES and (stem or path) else None
    return _parse(name, _POINT_REGEXES) or _parse_dictionary_point(name)


def _parse_dictionary_point(name: str) -> Address | None:
    """As :func:`parse_point`; how many latents there are is not known by the name."""
    found = taken_apart(name)
    host = None if found is None else _parse(found.host, _POINT_REGEXES)
    if found is None or host is None or not isinstance(host.spec, PointSpec):
        return None
    dims = (*host.spec.dims[:2], "F") if found.part.of_latents else host.spec.dims
    spec = PointSpec(name, dims, "", found.part.what.format(name=found.name))
    return Address(name, spec, host.layer, host.expert, found.name)


def parse_parameter(name: str) -> Address | None:
    """The address of a parameter by the grammar alone; ``….weight`` of a projection is allowed."""
    return _parse(name, _PARAMETER_REGEXES) or _parse(
        name.removesuffix(".weight"), _PARAMETER_REGEXES
    )


def parameter_order(name: str) -> tuple[int, int, int, str]:
    """Sorting key: the order of the table, then layers, then experts, then names it lacks."""
    address = parse_parameter(name)
    if address is None or not isinstance(address.spec, ParameterSpec):
        return len(PARAMETERS), 0, 0, name
    return PARAMETERS.index(address.spec), address.layer or 0, address.expert or 0, name


def _parse(name: str, table: Sequence[tuple[re.Pattern[str], object]]) -> Address | None:
    for regex, spec in table:
        if found := regex.fullmatch(name):
            holes = {key: int(value) for key, value in found.groupdict().items()}
            return Address(name, spec, holes.get("i"), holes.get("e"))  # type: ignore[arg-type]
    return None


def check_name(name: object, kind: str, error: type[UnknownName]) -> None:
    """Refuse what is no name.

    Args:
        kind: of what it should be the name.
        error: to raise.
    """
    if isinstance(name, str):
        return
    own = getattr(name, "name", None) or getattr(name, "point", None)
    example = own if isinstance(own, str) else _EXAMPLES[kind]
    several = isinstance(name, (list, tuple, set)) and "Give one name or pattern at a time. "
    raise error(
        f"{name!r} is no name of a {kind}: a name is a text.", f"{several or ''}Give {example!r}."
    )


_EXAMPLES = {"probe point": "layers.0.mlp.out", "parameter": "layers.0.mlp.up_proj"}


def is_pattern(name: str) -> bool:
    """Whether a name has wildcards: ``*``, ``4-7`` or ``{4,8}``."""
    return bool(re.search(r"[*{]|\.\d+-\d+(\.|$)", name))


def module_of(name: str) -> str:
    """The dotted path in the name of a module's side."""
    return name[len(MODULE_PREFIX) :].rpartition(".")[0]


def pattern_regex(pattern: str) -> re.Pattern[str]:
    """What a pattern, or the first parts of one, matches."""
    parts = []
    for part in pattern.split("."):
        if part == "*":
            parts.append(r"[^.]+")
        elif found := re.fullmatch(r"(\d+)-(\d+)", part):
            low, high = map(int, found.groups())
            parts.append("(?:" + "|".join(map(str, range(low, high + 1))) + ")")
        elif found := re.fullmatch(r"\{([\w,\s-]+)\}", part):
            choices = [_choice(x.strip()) for x in found.group(1).split(",")]
            parts.append("(?:" + "|".join(choices) + ")")
        else:
            parts.append(re.escape(part).replace(r"\*", r"[^.]*"))
    return re.compile(r"\.".join(parts))


def _choice(item: str) -> str:
    found = re.fullmatch(r"(\d+)-(\d+)", item)
    return "|".join(map(str, range(int(found[1]), int(found[2]) + 1))) if found else re.escape(item)


def an_example(pattern: str) -> str:
    """A name that a pattern could mean, for messages: ``layers.*.attn.z`` becomes ``layers.0.attn.z``."""
    parts = []
    for part in pattern.split("."):
        found = re.search(r"\d+", part)
        parts.append((found.group() if found else "0") if re.search(r"[*{]|\d-", part) else part)
    return ".".join(parts)


def point_spec(template: str) -> PointSpec:
    """The row of the table for a template."""
    return _POINT_BY_TEMPLATE[template]
