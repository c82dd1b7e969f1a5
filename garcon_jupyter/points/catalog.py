"""What one model has of the table."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from garcon_jupyter.errors import PointUnavailable, UnknownParameter, UnknownPoint
from garcon_jupyter.points.dictionary_points import (
    MARK,
    DictionaryPoint,
    DictionaryPoints,
    KnownDictionaries,
    taken_apart,
)
from garcon_jupyter.points.names import (
    MODULE_PREFIX,
    MODULE_SIDES,
    Address,
    an_example,
    check_name,
    fill,
    is_pattern,
    module_of,
    parse_parameter,
    parse_point,
    pattern_regex,
)
from garcon_jupyter.points.table import LIKE, POINTS, PointSpec


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
        kinds: what mixes the tokens of each layer (``attention``, ``sliding`` to a window, ``chunked``, ``sparse`` keys that
            an index chooses, ``linear``, ``mamba``, ``conv``; ``mlp`` and ``moe`` where nothing does), and ``+moe`` where
            experts are in place of its MLP; empty where no family says it.
        places: for each template that the model has, where in its modules the value is and how it is computed, in words.
        centred: the norms that take the mean away (LayerNorm; RMSNorm does not), by what the templates of their points begin
            with, such as ``layers.{i}.attn.norm``.
        dictionaries: that are loaded beside the model, by name; they come and go, and others load some as well.
    """

    sizes: dict[str, int]
    n_layers: int
    n_experts: int = 0
    layers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    places: dict[str, str] = field(default_factory=dict)
    centred: tuple[str, ...] = ()
    dictionaries: KnownDictionaries = field(default_factory=KnownDictionaries)

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

    def dictionary_names(self) -> list[str]:
        """All points of the dictionaries that are loaded."""
        return [name for each in self.dictionaries.values() for name in each.names()]

    def place(self, address: Address) -> str:
        """Where in the model's modules a point is and how it is computed there, in words."""
        if address.dictionary:
            of = self.dictionaries[address.dictionary]
            return f"what the dictionary makes of {of.where}: {of.formula}"
        said = f"the side that its name says: {address.name}"
        return self.places.get(address.template, said)

    def _fill_all(self, template: str, layer: int) -> list[str]:
        experts: Iterable[int | None] = range(self.n_experts) if "{e}" in template else (None,)
        return [fill(template, layer, expert) for expert in experts]

    def size(self, letter: str) -> int | None:
        """What a letter of a shape is for this model; None where only the tokens say it."""
        if letter.isdigit():
            return int(letter)
        return self.sizes.get(letter, self.sizes.get(LIKE.get(letter, "")))

    def shape(self, address: Address) -> tuple[str | int, ...]:
        """Shape of a point with every letter replaced that is known before the tokens are."""
        dims = address.spec.dims if address.spec else ()
        sizes = ((letter, self.size(letter)) for letter in dims)
        return tuple(letter if size is None else size for letter, size in sizes)

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
            raise UnknownPoint.among(
                "probe point", name, self.names() or [spec.template for spec in POINTS], remedy
            )
        if address.dictionary:
            return self._dictionary_point(address)
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

    def _dictionary_point(self, address: Address) -> Address:
        """The address of a dictionary's point, with the sizes that the dictionary has."""
        loaded, found = self.dictionaries.get(address.dictionary), taken_apart(address.name)
        assert found is not None
        if loaded is None:
            others = ", ".join(self.dictionaries) or "none"
            raise UnknownPoint(
                f"No dictionary {address.dictionary!r} is loaded; those that are: {others}.",
                "rmodel.dictionaries.load(PATH, name=…) loads one.",
                self.dictionary_names(),
            )
        if address.name not in loaded.names():
            raise UnknownPoint(
                self._why_not(loaded, found),
                f"Its latents are {loaded.pattern('latents')}.",
                loaded.names(),
            )
        writes = dict(loaded.ends)[found.host]
        like = self.point(found.host if found.part.of_latents else writes)
        assert isinstance(like.spec, PointSpec)
        return replace(address, spec=loaded.spec(found.part, like.spec, found.host))

    def _why_not(self, loaded: DictionaryPoints, found: DictionaryPoint) -> str:
        """Why a dictionary has no such point."""
        if found.host not in loaded.hosts:
            return f"The dictionary {loaded.name!r} reads {loaded.where.partition(' → ')[0]}, not {found.host}."
        if found.part.word in loaded.words:
            return f"The crosscoder {loaded.name!r} has one {found.part.word}, where it reads last: {loaded.reads}."
        return f"The dictionary {loaded.name!r} has no {found.part.word}: it chooses its latents one after the other."

    def _go_on(self, name: str) -> str:
        """What to name instead in a model that has points of its modules only."""
        names = [f"{MODULE_PREFIX}{path}.output" for path in self.paths]
        nearest = difflib.get_close_matches(name, names, n=2, cutoff=0.5) or [self.a_module()]
        return f"Probe a module, such as {' or '.join(nearest)}; rmodel.modules lists them all."

    def _check_module(self, name: str) -> None:
        path = module_of(name)
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
                f"Layer {address.layer} has no {address.name.split('.', 2)[-1]}{self._of_kind(address.layer, having)}.",
                f"The layers that have it: {', '.join(map(str, having)) or 'none'}.",
            )
        if address.expert is not None and address.expert >= self.n_experts:
            raise UnknownPoint(
                f"{address.name} is out of range: there are {self.n_experts} experts.",
                f"The last one is {self.n_experts - 1}.",
            )

    def _of_kind(self, layer: int, having: tuple[int, ...]) -> str:
        """The reason that a layer's kind is, where layers that have a point are all of other kinds."""
        if not self.kinds or self.kinds[layer] in {self.kinds[i] for i in having}:
            return ""
        return f": it is a layer of kind {self.kinds[layer]}"

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
        chosen = self._chosen(pattern)
        if not chosen and f".{MARK}." in pattern and self.dictionaries.renew():
            chosen = self._chosen(pattern)
        if not chosen:
            # One concrete address of the pattern tells whether the point or the numbers are wrong.
            address = self.point(an_example(pattern))
            raise UnknownPoint(
                f"{pattern!r} selects nothing.", f"{address.name} is a point of this model."
            )
        return chosen

    def _chosen(self, pattern: str) -> list[Address]:
        regex = pattern_regex(pattern)
        of_table = [*self.names(), *self.dictionary_names()]
        sides = self.module_names() if pattern.startswith(MODULE_PREFIX) else of_table
        return [self.point(name) for name in sides if regex.fullmatch(name)]

    def _is_module(self, name: str) -> bool:
        """Whether a name is that of a module, though a part of it may look like a wildcard."""
        address = parse_point(name)
        return bool(address and address.spec is None and module_of(name) in self.modules)

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
