"""Writes ``docs/probe_points.md`` from the table of points and the family files, the rooms of
``docs/architecture.md`` from what each room says of itself, and the options of ``docs/api/launch.md`` from their
declaration.

    python -m docs.generate

All are committed; a test checks that they are what this program makes.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from transformers import AutoConfig

from docs import rooms
from garcon_backend.models.families import FAMILIES
from garcon_backend.models.family import Family
from garcon_jupyter.points import PARAMETERS, POINTS, ParameterSpec, PointSpec
from garcon_jupyter.servers.options import Option, grouped

PAGE = Path(__file__).with_name("probe_points.md")
ARCHITECTURE = Path(__file__).with_name("architecture.md")
ROOMS = (
    "<!-- rooms: made by docs/generate.py from the rooms themselves; do not edit -->\n",
    "<!-- end -->\n",
)
LAUNCH = Path(__file__).parent / "api" / "launch.md"
OPTIONS = (
    "<!-- options: made by docs/generate.py from garcon_jupyter/servers/options.py; do not edit -->\n",
    "<!-- end -->\n",
)

OPENING = """\
<!-- Made by docs/generate.py from garcon_jupyter/points/table.py and the family files; do not edit. -->
# Probe points

A probe point is a named place in the forward pass where a tensor can be read or replaced. This page is
generated from the one table that the resolver, tab completion, shapes, sharding and tests come from. A name
that is not in it, or that a model does not have, is refused with the reason and the nearest names; nothing is
ever aliased to something close. `%garcon points` lists those of the model you are connected to.

## Reading the table

`{i}` is a layer, `{e}` an expert. Letters of a shape:

| | | | |
|---|---|---|---|
| `b` batch | `p` position | `D` residual stream | `V` vocabulary |
| `H` query heads | `K` key/value heads | `d` size of a head | `M` neurons of an MLP |
| `E` experts | `k` experts per token | `n` tokens routed to one expert | `P` learned positions |
| `S` neurons of shared experts | `R` heads of a recurrence | `r` size of one | `G` heads that write and read its state |
| `N` size of one | `C` channels of a short convolution | `I` what a mixer's output projection reads (`R·r`) | `w` positions that a short convolution reads |
| `t` what Mamba's steps are projected from | | | |

*Sharded* is the letter along which tensor parallelism cuts the value; an empty field means that every rank
holds all of it. A probe sees the whole value either way (with `sharded=True` it sees the shards).
"""

PATTERNS = """\
## Patterns

Several points at once, wherever a point is asked for:

| Pattern | Selects |
|---|---|
| `layers.*.mlp.post_activation` | every layer that has it |
| `layers.4-7.attn.z` | layers 4, 5, 6 and 7 |
| `layers.{4,8}.resid_post` | layers 4 and 8 |
| `layers.4.attn.*` | the points of that layer's attention (not those of its norm: `*` is one part of a name) |

## Any module

`module:{dotted.path}.input` and `module:{dotted.path}.output` name a side of any `torch.nn.Module`, of any
model: `module:model.layers.4.mlp.output`. The value is what the module itself takes or puts out. Under tensor
parallelism it is gathered by the layout that the sharding plan gives the module; where that layout is not
known, the point is refused with the reason.
"""

IDENTITIES = """\
## Identities

They hold on every architecture that has the points, and are tested:

- `pattern @ repeat(v) == z`
- the sum of `head_out` over heads, plus the bias, is `attn.out`
- `down_proj(post_activation) == mlp.out`
- `resid_pre + attn.contribution + mlp.contribution == resid_post`
- `norm.out == normalized * gain (+ bias)`

`out` and `contribution` are two different things where the architecture normalises what a sub-block puts out
(Gemma 2, OLMo 2): `out` is before that norm, `contribution` is what is added to the residual stream.
"""

PARAMETERS_OPENING = """\
## Parameters

`rmodel.get_parameter(name)`, and `params=[…]` of a probe. A matrix is always [out, in], whatever the
checkpoint stores; fused weights come back split under these names.
"""

FAMILIES_OPENING = """\
## Which architecture has which point

Families that have the same points share a letter; in parentheses stands the `model_type` of their configurations. ✓ means
that the point is there, a number why it is not (below), in a model of the architecture's default configuration;
`%garcon points` says it of yours. A model of any other architecture still loads, with
`module:` points only. It attends by its own function, as transformers runs it (sinks, sparse indices, biases by
position and whatever it has), and its numbers are the reference's.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def shape(spec: PointSpec | ParameterSpec) -> str:
    return ", ".join(spec.dims)


def points() -> str:
    """The table of points."""
    rows = [
        (f"`{spec.template}`", shape(spec), spec.split, spec.what + notes(spec)) for spec in POINTS
    ]
    return "## Points\n\n" + table(("Point", "Shape", "Sharded", "What it is"), rows)


def notes(spec: PointSpec) -> str:
    said = ["computed only when probed"] * spec.lazy
    said += ["has no gradient"] * (not spec.differentiable)
    return f" ({'; '.join(said)})" if said else ""


def parameters() -> str:
    """The table of parameters."""
    rows = [(f"`{spec.template}`", shape(spec), spec.split, spec.what) for spec in PARAMETERS]
    return PARAMETERS_OPENING + "\n" + table(("Parameter", "Shape", "Sharded", "What it is"), rows)


def families() -> str:
    """Kinds of families by point: there, or the number of the reason why not."""
    known = sorted({family.name: family for family in FAMILIES.values()}.items())
    refused = {name: {**family.refused, **usually_lacks(family)} for name, family in known}
    reasons: dict[str, int] = {}
    kinds: dict[tuple[str, ...], list[str]] = {}
    for name, _ in known:
        why = tuple(refused[name].get(spec.template, "") for spec in POINTS)
        kinds.setdefault(why, []).append(name)

    def cell(why: str) -> str:
        return str(reasons.setdefault(why, len(reasons) + 1)) if why else "✓"

    letters = dict(zip(string.ascii_uppercase, kinds, strict=False))
    rows = [
        (f"`{spec.template}`", *(cell(why[place]) for why in letters.values()))
        for place, spec in enumerate(POINTS)
    ]
    models = {name: f"{name} (`{'`, `'.join(family.model_types)}`)" for name, family in known}
    alike = [
        f"- **{letter}**: {'; '.join(models[name] for name in kinds[why])}"
        for letter, why in letters.items()
    ]
    numbered = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join(
        [
            FAMILIES_OPENING,
            *alike,
            "",
            table(("Point", *letters), rows),
            *numbered,
            "",
        ]
    )


def usually_lacks(family: Family) -> Mapping[str, str]:
    """What a model of the family's default configuration lacks."""
    return family.lacks(AutoConfig.for_model(family.model_types[0]))


def page() -> str:
    """The whole page."""
    return "\n".join([OPENING, points(), PATTERNS, families(), parameters(), IDENTITIES])


def options() -> str:
    """The tables of the options of a launch."""
    head = ("In Python", "On a command line", "What it is", "Where it is not given", "Side bar")
    parts = []
    for group, those in grouped().items():
        title = [f"### {group[0].upper()}{group[1:]}\n"] if group else []
        parts += [*title, table(head, map(option, those))]
    return "\n".join(parts)


def option(of: Option) -> tuple[str, ...]:
    """The row of an option."""
    value = f" {{{','.join(of.choices)}}}" if of.choices else f" {of.metavar or of.name.upper()}"
    shown = f"{of.flag}, --no-{of.flag[2:]}" if of.kind == "truth" else of.flag + value
    field = of.field.label if of.field else ""
    return f"`{of.name}`", f"`{shown}`", of.meaning, of.otherwise, field


def between(marks: tuple[str, str], text: str, made: str) -> str:
    """A text with what is made anew between two marks."""
    before, rest = text.split(marks[0])
    return f"{before}{marks[0]}{made}{marks[1]}{rest.split(marks[1], 1)[1]}"


def architecture(text: str) -> str:
    """``architecture.md`` with the rooms as they are now."""
    return between(ROOMS, text, rooms.section())


def launch(text: str) -> str:
    """``launch.md`` with the options as they are now."""
    return between(OPTIONS, text, options())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    for file, made in ((ARCHITECTURE, architecture), (LAUNCH, launch)):
        file.write_text(made(file.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}, the rooms of {ARCHITECTURE} and the options of {LAUNCH}")
