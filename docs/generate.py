"""Writes ``docs/probe_points.md`` from the table of points and the family files, the rooms of
``docs/architecture.md`` from what each room says of itself, the options of ``docs/api/launch.md`` from their
declaration, the formats of ``docs/dictionaries.md`` and the operations of ``docs/http.md`` from their tables.

    python -m docs.generate

All are committed; a test checks that they are what this program makes.
"""

from __future__ import annotations

from pathlib import Path

from docs import families, formats, operations, rooms
from docs.tables import table
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

DICTIONARIES = Path(__file__).with_name("dictionaries.md")
FORMATS = (
    "<!-- formats: made by docs/generate.py from backend/garcon_backend/dictionaries/formats; do not edit -->\n",
    "<!-- end -->\n",
)

HTTP = Path(__file__).with_name("http.md")
OPERATIONS = (
    "<!-- operations: made by docs/generate.py from garcon_jupyter/operations; do not edit -->\n",
    "<!-- end -->\n",
)

OPENING = """\
<!-- Made by docs/generate.py from garcon_jupyter/points/table.py and the family files; do not edit. -->
# Probe points

A probe point is a named place in the forward pass where a tensor can be read or replaced. This page is
generated from the one table that the resolver, tab completion, shapes, sharding and tests come from. A name
that is not in it, or that a model does not have, is refused with the reason and the nearest names; nothing is
ever aliased to something close. `%garcon points` lists those of the model you are connected to, `%garcon points --why` says where
each is in its modules and how it is computed there: which norm, which order of a router, whether there are sinks.

## Reading the table

`{i}` is a layer, `{e}` an expert. Letters of a shape:

| | | | |
|---|---|---|---|
| `b` batch | `p` position | `D` residual stream | `V` vocabulary |
| `H` query heads | `K` key/value heads | `d` size of a head | `M` neurons of an MLP |
| `E` experts | `k` experts per token | `n` tokens routed to one expert | `P` learned positions |
| `m` neurons of one expert | `S` neurons of the shared experts | `r_q` rank of compressed queries | `r_kv` rank of compressed keys and values |
| `d_v` size of a head's values | `d_n` a key's dimensions without positions | `d_r` those with | `c` keys that a query chooses |
| `e` a token's embedding for one layer | `A` streams beside each other | `R` heads of a recurrence | `r` size of one |
| `G` heads that write and read its state | `N` size of one | `C` channels of a short convolution | `w` positions that it reads |
| `I` what a mixer's output projection reads (`R·r`) | `t` what Mamba's steps are projected from | `W` the stream beside the token's embedding | `a` a layer's own beside what it shares |

`d_v` is `d`, and `m` is `M`, where the model does not tell them apart.

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
- `down_proj(post_activation) == mlp.out`, of `post_activation_normed` where there is a norm between (BitNet)
- `resid_pre + attn.contribution + mlp.contribution == resid_post`
- `norm.out == normalized * gain (+ bias)`

In Gemma 4 the last but one is of four, and multiplied: `scale * (resid_pre + attn.contribution + mlp.contribution +
per_layer.contribution) == resid_post`, where `scale` is a number of the layer. In Gemma 3n it does not hold: a block has several
streams, corrected from one another; `(resid_pre + attn.contribution + laurel.contribution) / √2 == resid_mid` does.

`out` and `contribution` are two different things where the architecture normalises what a sub-block puts out
(Gemma 2, OLMo 2): `out` is before that norm, `contribution` is what is added to the residual stream.
"""

PARAMETERS_OPENING = """\
## Parameters

`rmodel.get_parameter(name)`, and `params=[…]` of a probe. A matrix is always [out, in], whatever the
checkpoint stores; fused weights come back split under these names.
"""


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


def page() -> str:
    """The whole page."""
    return "\n".join([OPENING, points(), PATTERNS, families.section(), parameters(), IDENTITIES])


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


def dictionaries(text: str) -> str:
    """``dictionaries.md`` with the formats as they are now."""
    return between(FORMATS, text, formats.section())


def http(text: str) -> str:
    """``http.md`` with the operations as they are now."""
    return between(OPERATIONS, text, operations.section())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    made_of = (
        (ARCHITECTURE, architecture),
        (LAUNCH, launch),
        (DICTIONARIES, dictionaries),
        (HTTP, http),
    )
    for file, made in made_of:
        file.write_text(made(file.read_text(encoding="utf-8")), encoding="utf-8")
    print(
        f"wrote {PAGE}, the rooms of {ARCHITECTURE}, the options of {LAUNCH}, the formats of {DICTIONARIES}, the operations of {HTTP}"
    )
