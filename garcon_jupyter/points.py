"""The table of probe points and the grammar of their addresses.

A *probe point* is a named place in the forward pass where a tensor can be read or replaced. This
table is the only declaration of them: the resolver, the documentation, tab completion, shapes,
sharding and the tests are generated from it. A *template* has holes (``layers.{i}.attn.q``); an
*address* fills them (``layers.4.attn.q``); a *pattern* selects many addresses
(``layers.*.attn.q``, ``layers.4-7.attn.z``, ``layers.{4,8}.resid_post``).

Letters of a shape: b batch, p position, D d_model, H query heads, K key/value heads, d d_head,
M d_mlp, E experts, k experts per token, V vocabulary, n tokens routed to one expert; ``1`` is one.

Beside the table there is one escape hatch, ``module:{dotted.path}.input`` / ``.output``, which
names any :class:`torch.nn.Module` of any model.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from garcon_jupyter.errors import PointUnavailable, UnknownName, UnknownParameter, UnknownPoint


@dataclass(frozen=True)
class PointSpec:
    """One row of the table.

    Attributes:
        template: the address with its holes ``{i}`` (layer) and ``{e}`` (expert).
        dims: letters of the shape, in order.
        split: the letter along which tensor parallelism shards the value; "" where replicated.
        what: what the tensor is, one phrase.
        lazy: computed only when probed.
        differentiable: whether gradients exist (indices have none).
    """

    template: str
    dims: tuple[str, ...]
    split: str
    what: str
    lazy: bool = False
    differentiable: bool = True


def _rows(*rows: tuple[str, str, str, str]) -> list[PointSpec]:
    return [PointSpec(t, tuple(dims.split(",")), split, what) for t, dims, split, what in rows]


_NORM = (
    ("scale", "b,p,1", "denominator of the norm"),
    ("normalized", "b,p,D", "value before the gain"),
    ("out", "b,p,D", "value after the gain"),
)


def _norm(prefix: str, name: str) -> list[PointSpec]:
    return _rows(*((f"{prefix}.{p}", d, "", f"{name}: {what}") for p, d, what in _NORM))


POINTS: tuple[PointSpec, ...] = (
    *_rows(
        ("embed.out", "b,p,D", "", "token embedding"),
        ("pos_embed.out", "b,p,D", "", "learned position embedding"),
        ("layers.{i}.resid_pre", "b,p,D", "", "residual stream entering the block"),
    ),
    *_norm("layers.{i}.attn.norm", "norm before attention"),
    *_rows(
        ("layers.{i}.attn.in", "b,p,D", "", "what q, k and v are projected from"),
        ("layers.{i}.attn.q", "b,p,H,d", "H", "queries, before rotary and q-norm"),
        ("layers.{i}.attn.k", "b,p,K,d", "K", "keys, before rotary, k-norm and repetition"),
        ("layers.{i}.attn.v", "b,p,K,d", "K", "values, before repetition to H heads"),
        ("layers.{i}.attn.q_normed", "b,p,H,d", "H", "queries after q-norm"),
        ("layers.{i}.attn.k_normed", "b,p,K,d", "K", "keys after k-norm"),
        ("layers.{i}.attn.q_rot", "b,p,H,d", "H", "queries after rotary"),
        ("layers.{i}.attn.k_rot", "b,p,K,d", "K", "keys after rotary"),
        (
            "layers.{i}.attn.scores",
            "b,H,p_q,p_k",
            "H",
            "attention scores: scaled, soft-capped, masked, before softmax",
        ),
        ("layers.{i}.attn.pattern", "b,H,p_q,p_k", "H", "attention pattern, after softmax"),
        ("layers.{i}.attn.z", "b,p,H,d", "H", "per-head mix of values"),
    ),
    PointSpec(
        "layers.{i}.attn.head_out",
        ("b", "p", "H", "D"),
        "H",
        "each head's write into the residual stream",
        lazy=True,
    ),
    *_rows(
        ("layers.{i}.attn.out", "b,p,D", "", "after the output projection"),
        (
            "layers.{i}.attn.contribution",
            "b,p,D",
            "",
            "what attention adds to the residual stream (after a post-norm, where there is one)",
        ),
        ("layers.{i}.resid_mid", "b,p,D", "", "residual stream between attention and MLP"),
    ),
    *_norm("layers.{i}.mlp.norm", "norm before the MLP"),
    *_rows(
        ("layers.{i}.mlp.in", "b,p,D", "", "what the MLP reads"),
        (
            "layers.{i}.mlp.pre_activation",
            "b,p,M",
            "M",
            "input of the non-linearity (the gate projection where gated)",
        ),
        ("layers.{i}.mlp.pre_linear", "b,p,M", "M", "up projection of a gated MLP"),
        (
            "layers.{i}.mlp.post_activation",
            "b,p,M",
            "M",
            "the neurons: the input of the down projection",
        ),
        ("layers.{i}.mlp.router.logits", "b,p,E", "", "router scores of all experts"),
        ("layers.{i}.mlp.router.weights", "b,p,k", "", "weights of the chosen experts"),
    ),
    PointSpec(
        "layers.{i}.mlp.router.indices",
        ("b", "p", "k"),
        "",
        "indices of the chosen experts",
        differentiable=False,
    ),
    *_rows(
        (
            "layers.{i}.mlp.experts.{e}.post_activation",
            "n,M",
            "M",
            "neurons of the expert, for the tokens routed to it (save_ctx.here.token_index)",
        ),
        ("layers.{i}.mlp.out", "b,p,D", "", "raw output of the MLP"),
        (
            "layers.{i}.mlp.contribution",
            "b,p,D",
            "",
            "what the MLP adds to the residual stream (after a post-norm, where there is one)",
        ),
        ("layers.{i}.resid_post", "b,p,D", "", "residual stream leaving the block"),
    ),
    *_norm("final_norm", "final norm"),
    *_rows(("logits", "b,p,V", "V", "scores of the next token")),
)


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter of the table: always oriented [out, in], whatever the checkpoint stores."""

    template: str
    dims: tuple[str, ...]
    split: str
    what: str


def _parameters() -> Iterator[ParameterSpec]:
    yield ParameterSpec("embed.weight", ("V", "D"), "V", "token embedding")
    yield ParameterSpec("pos_embed.weight", ("P", "D"), "", "learned position embedding")
    for template, out, into in (
        ("layers.{i}.attn.q_proj", "H*d", "D"),
        ("layers.{i}.attn.k_proj", "K*d", "D"),
        ("layers.{i}.attn.v_proj", "K*d", "D"),
        ("layers.{i}.attn.o_proj", "D", "H*d"),
        ("layers.{i}.mlp.up_proj", "M", "D"),
        ("layers.{i}.mlp.gate_proj", "M", "D"),
        ("layers.{i}.mlp.down_proj", "D", "M"),
        ("layers.{i}.mlp.experts.{e}.up_proj", "M", "D"),
        ("layers.{i}.mlp.experts.{e}.gate_proj", "M", "D"),
        ("layers.{i}.mlp.experts.{e}.down_proj", "D", "M"),
        ("layers.{i}.mlp.router", "E", "D"),
    ):
        letter = next((x for x in ("H", "K", "M") if x in out + into), "")
        what = template.rsplit(".", 1)[1].replace("_proj", " projection")
        yield ParameterSpec(template, (out, into), letter, what)
        yield ParameterSpec(
            f"{template}.bias", (out,), letter if out != "D" else "", f"{what} bias"
        )
    for norm in (
        "layers.{i}.attn.norm",
        "layers.{i}.attn.q_norm",
        "layers.{i}.attn.k_norm",
        "layers.{i}.attn.post_norm",
        "layers.{i}.mlp.norm",
        "layers.{i}.mlp.post_norm",
        "final_norm",
    ):
        size = "d" if norm.endswith(("q_norm", "k_norm")) else "D"
        yield ParameterSpec(f"{norm}.weight", (size,), "", "norm gain")
        yield ParameterSpec(f"{norm}.bias", (size,), "", "norm bias")
    yield ParameterSpec("unembed.weight", ("V", "D"), "V", "unembedding")
    yield ParameterSpec("unembed.bias", ("V",), "V", "unembedding bias")


PARAMETERS: tuple[ParameterSpec, ...] = tuple(_parameters())

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
    """A point or parameter of one model: its name, its row of the table, its layer and expert."""

    name: str
    spec: PointSpec | ParameterSpec | None
    layer: int | None = None
    expert: int | None = None

    @property
    def template(self) -> str:
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
    return _parse(name, _POINT_REGEXES)


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


@dataclass(frozen=True)
class Catalog:
    """Which points and parameters one loaded model has, and why it lacks the others.

    Made by the server, sent to the client when it connects, so that names resolve, complete and
    are refused without a trip.

    Attributes:
        sizes: what each letter of a shape is for this model, e.g. ``{"D": 576, "H": 9, …}``.
        n_layers: number of blocks.
        n_experts: experts per layer, 0 where there are none.
        layers: for each template with a layer that exists, the layers that have it.
        refused: for each other template, why the model lacks it.
        modules: dotted paths of all modules of the model.
        parameters: all parameter addresses of the model.
    """

    sizes: dict[str, int]
    n_layers: int
    n_experts: int = 0
    layers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()

    @property
    def mapped(self) -> bool:
        """Whether the model has points of the table, and not those of its modules only."""
        return any(spec.template not in self.refused for spec in POINTS)

    @property
    def paths(self) -> list[str]:
        """Dotted paths of the modules inside the model."""
        return [path for path in self.modules if path]

    def a_module(self) -> str:
        """A point of some module, as an example: the output of a block, where there is a list of them."""
        blocks = [path for path in self.paths if re.search(r"\.\d+$", path)]
        return f"{MODULE_PREFIX}{[*blocks, *self.paths, ''][0]}.output"

    def names(self) -> list[str]:
        """All addresses of the table that this model has, in the order of the forward pass."""
        blocks: list[PointSpec] = []
        before: list[PointSpec] = []
        after: list[PointSpec] = []
        for spec in POINTS:
            if spec.template in self.refused:
                continue
            if "{i}" in spec.template:
                blocks.append(spec)
            else:
                (after if blocks else before).append(spec)
        names = [spec.template for spec in before]
        for layer, spec in itertools.product(range(self.n_layers), blocks):
            if layer in self.layers.get(spec.template, ()):
                names += self._fill_all(spec.template, layer)
        return names + [spec.template for spec in after]

    def _fill_all(self, template: str, layer: int) -> list[str]:
        experts: Iterable[int | None] = range(self.n_experts) if "{e}" in template else (None,)
        return [fill(template, layer, expert) for expert in experts]

    def shape(self, address: Address) -> tuple[str | int, ...]:
        """Shape of a point with every letter replaced that is known before the tokens are."""
        dims = address.spec.dims if address.spec else ()
        return tuple(int(x) if x.isdigit() else self.sizes.get(x, x) for x in dims)

    def point(self, name: str) -> Address:
        """The address of one point.

        Raises:
            UnknownPoint: the grammar has no such name; names the nearest ones.
            PointUnavailable: this model, or this layer, lacks it; says why.
        """
        check_name(name, "probe point", UnknownPoint)
        address = parse_point(name)
        if address is None:
            remedy = "Patterns like layers.*.mlp.out select many; %garcon points lists all."
            if name.startswith(MODULE_PREFIX):
                raise UnknownPoint(
                    f"{name!r} names no side of a module.", "End it with .input or .output."
                )
            if not self.mapped:
                raise UnknownPoint(f"There is no probe point {name!r}.", self._go_on(name))
            raise UnknownPoint.among("probe point", name, self.names() or _templates(), remedy)
        if address.spec is None:
            self._check_module(name)
        elif address.template in self.refused:
            raise PointUnavailable(
                f"This model has no {name}: {self.refused[address.template]}.",
                "%garcon points lists what it has." if self.mapped else self._go_on(name),
            )
        elif address.layer is not None:
            self._check_layer(address)
        return address

    def _go_on(self, name: str) -> str:
        """What to name instead in a model that has points of its modules only."""
        names = [f"{MODULE_PREFIX}{path}.output" for path in self.paths]
        nearest = difflib.get_close_matches(name, names, n=2, cutoff=0.5) or [self.a_module()]
        return f"Probe a module, such as {' or '.join(nearest)}; rmodel.modules lists them all."

    def _check_module(self, name: str) -> None:
        path = _module_of(name)
        if path not in self.modules:
            raise UnknownPoint.among(
                "module", path, self.modules, "rmodel.modules lists the dotted paths."
            )

    def _check_layer(self, address: Address) -> None:
        if address.layer is None or address.layer >= self.n_layers:
            raise UnknownPoint(
                f"{address.name} is out of range: the model has layers 0 to {self.n_layers - 1}.",
                f"The last one is {fill(address.template, self.n_layers - 1, address.expert)}.",
            )
        if address.layer not in self.layers.get(address.template, ()):
            having = self.layers.get(address.template, ())
            raise PointUnavailable(
                f"Layer {address.layer} has no {address.name.split('.', 2)[-1]}.",
                f"The layers that have it: {', '.join(map(str, having)) or 'none'}.",
            )
        if address.expert is not None and address.expert >= self.n_experts:
            raise UnknownPoint(
                f"{address.name} is out of range: there are {self.n_experts} experts.",
                f"The last one is {self.n_experts - 1}.",
            )

    def select(self, pattern: str) -> list[Address]:
        """All points that a pattern selects, in the order of the forward pass.

        ``*`` stands for any number, ``4-7`` and ``{4,8}`` for those layers. A pattern without
        wildcards is a name. A wildcard over layers skips the layers that lack the point. In
        ``module:model.layers.*.mlp.output`` it stands for any one part of the modules' paths.

        Raises:
            UnknownPoint, PointUnavailable: as :meth:`point`, or where nothing is selected.
        """
        check_name(pattern, "probe point", UnknownPoint)
        if not is_pattern(pattern) or self._is_module(pattern):
            return [self.point(pattern)]
        regex = pattern_regex(pattern)
        sides = self.module_names() if pattern.startswith(MODULE_PREFIX) else self.names()
        chosen = [self.point(name) for name in sides if regex.fullmatch(name)]
        if not chosen:
            # One concrete address of the pattern tells whether the point or the numbers are wrong.
            address = self.point(_an_example(pattern))
            raise UnknownPoint(
                f"{pattern!r} selects nothing.", f"{address.name} is a point of this model."
            )
        return chosen

    def _is_module(self, name: str) -> bool:
        """Whether a name is that of a module, though a part of it may look like a wildcard."""
        address = parse_point(name)
        return bool(address and address.spec is None and _module_of(name) in self.modules)

    def module_names(self) -> list[str]:
        """All ``module:`` points: each module's input and output."""
        return [f"{MODULE_PREFIX}{path}.{side}" for path in self.modules for side in MODULE_SIDES]

    def parameter(self, name: str) -> Address:
        """The address of one parameter.

        Raises:
            UnknownParameter: no such parameter in this model; names the nearest ones.
        """
        check_name(name, "parameter", UnknownParameter)
        for candidate in (name, name.removesuffix(".weight")):
            if candidate in self.parameters:
                address = parse_parameter(candidate)
                return address or Address(candidate, None)
        if is_pattern(name):
            regex = pattern_regex(name)
            found = [known for known in self.parameters if regex.fullmatch(known)]
            raise UnknownParameter(
                f"{name!r} is a pattern of {len(found)} parameters, where the name of one is needed.",
                f"Such as {found[0]}; ask for each by its name." if found else "",
                found,
            )
        raise UnknownParameter.among(
            "parameter", name, self.parameters, "%garcon params lists all."
        )


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


def _module_of(name: str) -> str:
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


def _an_example(pattern: str) -> str:
    parts = []
    for part in pattern.split("."):
        found = re.search(r"\d+", part)
        parts.append((found.group() if found else "0") if re.search(r"[*{]|\d-", part) else part)
    return ".".join(parts)


def _templates() -> list[str]:
    return [spec.template for spec in POINTS]


def point_spec(template: str) -> PointSpec:
    """The row of the table for a template."""
    return _POINT_BY_TEMPLATE[template]


__all__ = [
    "PARAMETERS",
    "POINTS",
    "Address",
    "Catalog",
    "ParameterSpec",
    "PointSpec",
    "UnknownName",
    "fill",
    "is_pattern",
    "parse_parameter",
    "parse_point",
    "point_spec",
]
