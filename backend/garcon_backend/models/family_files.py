"""A family of the user's own: from a TOML file, or from a module of Python.

A TOML file says the same as a family file of this repository. It begins where another family ends (``like``), with other
paths (``renamed``), and says the rest, in the words of the table of points::

    name = "mine"
    model_types = ["mine"]           # of the configurations that it serves; none for a module of a loader
    like = "llama"
    renamed = {"model.layers" = "blocks"}

    [sizes]                          # the name of a number in the configuration, or the number itself
    D = "width"
    H = 4

    [points]                         # a side of a module, as in module:{path}.output
    "layers.{i}.attn.q" = {at = "blocks.{i}.attn.q.output", heads = true}

    [norms]                          # three points and two parameters each
    "final_norm" = {at = "norm", kind = "layer_norm"}

    [refused]
    "pos_embed.out" = "positions are rotary"

    [parameters]                     # where they are stored
    "layers.{i}.attn.q_proj" = "blocks.{i}.attn.q.weight"

    otherwise = "this model has nothing of the kind"
"""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from garcon_backend.hook_sites.other_sites import ScaledOutput
from garcon_backend.hook_sites.sites import (
    HookSite,
    InAttention,
    Input,
    Inside,
    LogitsOf,
    Output,
    SharedInput,
)
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.staged.head_outputs import output_by_head
from garcon_backend.hook_sites.views import FlatTokens, FusedPart, Heads, Interleaved, PointView
from garcon_backend.models.binding import BoundFamily
from garcon_backend.models.families import FAMILIES
from garcon_backend.models.family import (
    Family,
    Weight,
    norm_points,
    norm_weights,
    rows_of_each_head,
    rows_of_part,
    standard_sizes,
)
from garcon_jupyter.errors import BadRequest, MissingModule, UnknownName, UnknownPoint
from garcon_jupyter.points import PARAMETERS, POINTS, fill

KEYS = (
    *("name", "model_types", "like", "renamed", "layers", "sizes"),
    *("points", "norms", "refused", "parameters", "otherwise"),
)
"""What a file may say."""

NORMS = ("rms_norm", "gemma_rms_norm", "olmo_rms_norm", "layer_norm", "layer_norm_1p")
"""Kinds of norms: the staged forwards that compute them."""

SIDES = ("output", "input", "shared_input")
"""Sides of a module; of a shared input the model goes on using the same tensor beside the module."""

NOTHING = "the family file says nothing of it"


def read_family(word: str) -> Family:
    """The family that ``--family`` names.

    Args:
        word: the path of a TOML file, or ``package.module:NAME`` of a :class:`Family`, or of a function without arguments
            that returns one.

    Raises:
        BadRequest: the file cannot be read, or what is found is no family; says where.
        MissingModule: the module cannot be imported.
        UnknownName: something is named that does not exist; names the nearest.
    """
    if word.endswith(".toml"):
        return from_toml(Path(word))
    module, _, name = word.partition(":")
    try:
        found = vars(importlib.import_module(module))
    except ImportError as error:
        raise MissingModule(
            f"The module {module!r} of the family cannot be imported: {error}",
            "Install it where the server runs, or add its directory to PYTHONPATH.",
        ) from error
    if name not in found:
        raise UnknownName.among(f"family in {module}", name, found)
    family = found[name]
    made = family if isinstance(family, Family) else family() if callable(family) else family
    if not isinstance(made, Family):
        raise BadRequest(
            f"{word} is a {type(made).__name__}, and no family.",
            "See garcon_backend.models.family.Family.",
        )
    return made


def from_toml(file: Path) -> Family:
    """The family of a file.

    Raises:
        BadRequest: it cannot be read, or says something twice or in no known way.
        UnknownName: it names a key, a point, a parameter or a family that does not exist.
    """
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadRequest(f"The family file {file} cannot be read: {error}") from error
    _among("key of a family file", said, KEYS)
    return _FamilyFile(file, said).family()


class _FamilyFile:
    """What one file says, put together."""

    def __init__(self, file: Path, said: Mapping[str, Any]) -> None:
        self.file, self.said = file, said

    def family(self) -> Family:
        base = self._base()
        points = {**base.points, **self._points()}
        refused: dict[str, str] = dict(self._table("refused"))
        _among("probe point", (*points, *refused), [spec.template for spec in POINTS], UnknownPoint)
        for template in points.keys() & refused.keys():
            if template in self._points():
                raise self._wrong(f"{template} is a point, and refused")
            del points[template]
        otherwise = str(self.said.get("otherwise", NOTHING))
        unsaid = [s.template for s in POINTS if s.template not in points]
        parameters = {**base.parameters, **self._parameters()}
        _among("parameter", parameters, [spec.template for spec in PARAMETERS])
        return replace(
            base,
            name=str(self.said.get("name", self.file.stem)),
            model_types=tuple(self.said.get("model_types", ())),
            layers=str(self.said.get("layers", base.layers)),
            points=points,
            refused={**dict.fromkeys(unsaid, otherwise), **_kept(base.refused, unsaid), **refused},
            parameters=parameters,
            sizes=self._sizes(base),
        )

    def _base(self) -> Family:
        """What the file begins with."""
        like = self.said.get("like")
        if like is None:
            if "layers" not in self.said:
                raise self._wrong("it says no layers", 'Write layers = "path.of.the.blocks".')
            return Family("", (), {}, dict.fromkeys((s.template for s in POINTS), NOTHING), {}, "")
        by_name = {family.name: family for family in FAMILIES.values()}
        if like not in by_name:
            raise UnknownName.among("family", str(like), by_name)
        return self._renamed(by_name[like])

    def _renamed(self, base: Family) -> Family:
        """A family with other paths."""
        others = self._table("renamed")

        def path(old: str) -> str:
            for mine, new in others.items():
                old = old.replace(mine, str(new))
            return old

        def elsewhere(site: HookSite) -> HookSite:
            return replace(site, path=path(site.path))  # type: ignore[type-var]  # each is a dataclass

        return replace(
            base,
            layers=path(base.layers),
            points={template: elsewhere(site) for template, site in base.points.items()},
            parameters={
                template: replace(
                    weight,
                    path=path(weight.path),
                    tied=weight.tied and path(weight.tied),
                    otherwise=weight.otherwise and path(weight.otherwise),
                    counted=weight.counted and path(weight.counted),
                )
                for template, weight in base.parameters.items()
            },
        )

    def _sizes(self, base: Family) -> Callable[[Any], dict[str, int]]:
        said = self._table("sizes")

        def sizes(config: Any) -> dict[str, int]:
            found = base.sizes(config) if config is not None else standard_sizes(config)
            for letter, size in said.items():
                found[letter] = size if isinstance(size, int) else int(getattr(config, size))
            return found

        return sizes if said else base.sizes

    def _points(self) -> dict[str, HookSite]:
        found = {name: self._site(name, place) for name, place in self._table("points").items()}
        for prefix, norm in self._table("norms").items():
            path, kind = self._norm(prefix, norm)
            found |= norm_points(prefix, path, getattr(norms, kind))
        return found

    def _parameters(self) -> dict[str, Weight]:
        found: dict[str, Weight] = {}
        for prefix, norm in self._table("norms").items():
            path, kind = self._norm(prefix, norm)
            offset = 1.0 if kind in ("gemma_rms_norm", "layer_norm_1p") else 0.0
            found |= norm_weights(prefix, path, offset)
        for name, place in self._table("parameters").items():
            found[name] = self._weight(name, place)
        return found

    def _norm(self, prefix: str, said: Any) -> tuple[str, str]:
        options = self._options(prefix, said, ("at", "kind"))
        kind = str(options.get("kind", "rms_norm"))
        _among("kind of norm", [kind], NORMS)
        return str(options["at"]), kind

    def _site(self, name: str, said: Any) -> HookSite:
        if name == "logits" and said == "output":
            return LogitsOf()
        options = self._options(
            name, said, ("at", "heads", "part", "of", "tokens", "item", "times")
        )
        path, _, side = str(options["at"]).rpartition(".")
        if side == "by_head":
            return Inside(path, output_by_head, "head_out")
        if side == "attention":
            return InAttention(path, str(options.get("part", name.rpartition(".")[2])))
        if side not in SIDES:
            raise self._wrong(
                f"{name}: {options['at']!r} ends in no side of a module",
                f"End it in .{', .'.join(SIDES)}; .attention (inside its attention function) or .by_head.",
            )
        view = _view(options)
        if side == "shared_input":
            return SharedInput(path, view)
        if side == "input":
            return Input(path, view)
        if times := options.get("times"):
            return ScaledOutput(path, str(times))
        return Output(path, view, options.get("item"))

    def _weight(self, name: str, said: Any) -> Weight:
        options = self._options(
            name, said, ("at", "transposed", "part", "of", "each_head", "offset")
        )
        weight = Weight(
            str(options["at"]),
            transposed=bool(options.get("transposed", False)),
            offset=float(options.get("offset", 0.0)),
        )
        if "part" not in options:
            return weight
        rows = rows_of_each_head if options.get("each_head") else rows_of_part
        return replace(weight, rows=rows(int(options["part"]), int(options["of"])))

    def _options(self, name: str, said: Any, known: tuple[str, ...]) -> Mapping[str, Any]:
        """What stands for a point or a parameter: a path, or a table with one at ``at``."""
        if isinstance(said, str):
            return {"at": said}
        if not isinstance(said, Mapping) or "at" not in said:
            raise self._wrong(
                f"{name} has no place", f'Write "{name}" = "path.of.a.module.output".'
            )
        _among(f"word for {name}", said, known)
        return said

    def _table(self, key: str) -> Mapping[str, Any]:
        found = self.said.get(key, {})
        if not isinstance(found, Mapping):
            raise self._wrong(f"{key} is no table")
        return found

    def _wrong(self, problem: str, remedy: str = "") -> BadRequest:
        return BadRequest(f"The family file {self.file}: {problem}.", remedy)


def _view(options: Mapping[str, Any]) -> PointView:
    if "part" in options:
        index, count = int(options["part"]), int(options["of"])
        if options.get("heads") == "interleaved":
            return Interleaved(index, count)
        return FusedPart(index, count, bool(options.get("heads", False)))
    if options.get("heads"):
        return Heads()
    return FlatTokens() if options.get("tokens") == "flat" else PointView()


def _kept(refused: Mapping[str, str], unsaid: list[str]) -> dict[str, str]:
    """Reasons of the family that a file begins with, for what the file does not say."""
    return {t: why for t, why in refused.items() if t in unsaid and why != NOTHING}


def _among(kind: str, words: Any, known: Any, error: type[UnknownName] = UnknownName) -> None:
    for word in words:
        if word not in known:
            raise error.among(kind, word, known)


def check_places(bound: BoundFamily) -> None:
    """Refuse a family that says of a model what it does not have: a place that no layer has is a slip of the pen.

    Args:
        bound: to the whole model; a stage of a pipeline cannot tell.

    Raises:
        UnknownName: naming the point or parameter, and the nearest modules or parameters that there are.
    """
    family, model = bound.family, bound.model
    if family is None:
        return
    modules = [name for name, _ in model.named_modules()]
    stored = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    layers = range(bound.catalog.n_layers)
    if not layers:
        raise UnknownName.among("list of blocks", family.layers, modules)
    for template, site in family.points.items():
        if not any(site.at(layer, 0) in modules for layer in layers):
            raise UnknownName.among(f"module of {template}", site.at(0, 0), modules)
    for template, weight in family.parameters.items():
        paths = [fill(weight.path, layer) for layer in layers] + [weight.tied]
        if not template.endswith(".bias") and not any(path in stored for path in paths):
            raise UnknownName.among(f"stored parameter for {template}", paths[0] or "", stored)
