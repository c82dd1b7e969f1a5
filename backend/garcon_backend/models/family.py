"""What a family file declares: where each point and parameter of one architecture is.

A *family* is data, not code: a site for each point of the table, a reason for each point that the
architecture lacks, a weight for each parameter. Binding it to a loaded model checks it against the
real modules and gives the :class:`~garcon_jupyter.points.Catalog` that clients resolve names by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from garcon_backend.hook_sites import attention, staged_forwards
from garcon_backend.hook_sites.sites import (
    ByKind,
    HookSite,
    InAttention,
    Input,
    Inside,
    Output,
    StagedForward,
)
from garcon_backend.models.family_notes import standard_notes
from garcon_backend.models.fused_rows import (
    Rows,
    Sizes,
    every_row,
    rows_in_blocks,
    rows_in_turn,
    rows_of_each_head,
    rows_of_group,
    rows_of_part,
    rows_of_stretch,
)
from garcon_backend.models.layer_kinds import standard_mixers
from garcon_backend.models.rotary import extends_context
from garcon_jupyter.model_files.configuration import of_all_layers, of_each_layer
from garcon_jupyter.model_files.multimodal import text_config
from garcon_jupyter.points import MODULE_PREFIX, PARAMETERS, POINTS, Address, Catalog, fill


@dataclass(frozen=True)
class Weight:
    """Where a parameter of the table is among those of the checkpoint.

    Attributes:
        path: dotted path of the stored parameter, with ``{i}`` as a hole. What is stored for all
            experts at once has the expert as its first dimension.
        rows: picks this parameter's rows out of a fused one, once it is oriented [out, in].
        transposed: stored as [in, out].
        offset: what is added to values, not to gradients: 1 for Gemma's gains, stored as gain − 1.
        tied: another path that holds the same parameter where this one is absent.
        beside: path of a module that layers have whose parameter it is; any layer where it is "".
        unless: paths of modules that these layers do not have.
    """

    path: str
    rows: Rows = every_row
    transposed: bool = False
    offset: float = 0.0
    tied: str | None = None
    beside: str = ""
    unless: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """How one parameter of a loaded model is read.

    Attributes:
        read: takes the stored tensor (whole) to the table's orientation and part. Linear, so that it
            reads gradients as well.
        offset: what is added to values, not to gradients.
    """

    read: Callable[[Tensor], Tensor] = lambda stored: stored
    offset: float = 0.0


@dataclass(frozen=True)
class Family:
    """The sites and parameters of one architecture.

    Attributes:
        name: what messages call it.
        model_types: the ``model_type`` of the configurations it serves.
        points: template → site.
        refused: template → why this architecture has no such point. What the table gives a reason for by itself need
            not be said.
        parameters: template → weight.
        layers: dotted path of the list of blocks.
        sizes: config → size of each letter.
        lacks: config → points that some models of the family lack, and why.
        notes: config → of some points, what a reader of their values should know.
        shaped: config → the family as models of that configuration are, where their modules have other names; None where
            all have the same.
        mixers: config → of each layer, what mixes its tokens (:data:`~garcon_backend.models.layer_kinds.MIXERS`).
        elsewhere: config → sites of the points that are in other modules in some models of the family.
        not_while_generating: template → why a point that a forward shows cannot be shown while tokens are generated.
    """

    name: str
    model_types: tuple[str, ...]
    points: Mapping[str, HookSite]
    refused: Mapping[str, str]
    parameters: Mapping[str, Weight]
    layers: str
    sizes: Callable[[Any], dict[str, int]] = field(default=lambda config: standard_sizes(config))
    lacks: Callable[[Any], Mapping[str, str]] = field(default=lambda config: {})
    notes: Callable[[Any], Mapping[str, str]] = field(default=lambda config: standard_notes(config))
    mixers: Callable[[Any], tuple[str, ...]] = field(default=lambda config: standard_mixers(config))
    shaped: Callable[[Any], Family] | None = None
    elsewhere: Callable[[Any], Mapping[str, HookSite]] = field(default=lambda config: {})
    not_while_generating: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        templates = {spec.template for spec in POINTS}
        usual = {spec.template: spec.absent for spec in POINTS if spec.absent}
        unsaid = {template: why for template, why in usual.items() if template not in self.points}
        object.__setattr__(self, "refused", {**unsaid, **self.refused})
        both = set(self.points) & set(self.refused)
        neither = templates ^ (set(self.points) | set(self.refused))
        unknown = set(self.parameters) - {spec.template for spec in PARAMETERS}
        if wrong := both | neither | unknown:
            raise ValueError(f"{self.name}: {sorted(wrong)} are not said once")


def standard_sizes(config: object) -> dict[str, int]:
    """Sizes of the letters from a transformers configuration, by the usual names.

    A size that differs from layer to layer is none of the model's. Neither is P where rotary positions are
    made for longer texts than the configuration says.
    """

    def first(*names: str) -> int | None:
        return next((v for n in names if isinstance(v := of_all_layers(config, n), int)), None)

    heads = first("num_attention_heads", "n_head") or 1
    width = first("hidden_size", "n_embd") or 0
    sizes = {
        "D": width,
        "H": heads,
        "K": first("num_key_value_heads") or heads,
        "d": first("head_dim") or width // heads,
        "M": first("intermediate_size", "n_inner") or 4 * width,
        "V": first("vocab_size") or 0,
        "E": first("num_local_experts", "num_experts") or 0,
        "k": first("num_experts_per_tok") or 0,
        "P": 0 if extends_context(config) else first("max_position_embeddings", "n_positions") or 0,
    }
    for letter, name in (
        ("d", "head_dim"),
        ("K", "num_key_value_heads"),
        ("M", "intermediate_size"),
    ):
        if len(of_each_layer(config, name)) > 1:
            del sizes[letter]
    return {letter: size for letter, size in sizes.items() if size > 0}


def norm_points(
    prefix: str, path: str, in_steps: StagedForward = staged_forwards.rms_norm
) -> dict[str, HookSite]:
    """The three points of a norm."""
    return {
        f"{prefix}.scale": Inside(path, in_steps, "scale"),
        f"{prefix}.normalized": Inside(path, in_steps, "normalized"),
        f"{prefix}.out": Output(path),
    }


def norm_weights(prefix: str, path: str, offset: float = 0.0) -> dict[str, Weight]:
    """Gain and bias of a norm."""
    return {
        f"{prefix}.weight": Weight(f"{path}.weight", offset=offset),
        f"{prefix}.bias": Weight(f"{path}.bias"),
    }


def linear(
    template: str, path: str, rows: Rows = every_row, transposed: bool = False
) -> dict[str, Weight]:
    """Weight and bias of a projection, or of one of several that are fused."""
    return {
        template: Weight(f"{path}.weight", rows, transposed),
        f"{template}.bias": Weight(f"{path}.bias", rows),
    }


@dataclass
class BoundFamily:
    """A family bound to one loaded model.

    Attributes:
        model: or the part of it that this rank holds.
        family: None where the architecture is not mapped.
        catalog: what the model has, and why it lacks the rest.
    """

    model: nn.Module
    family: Family | None
    catalog: Catalog

    def site(self, address: Address) -> tuple[HookSite, nn.Module | None]:
        """Where a point is, and the module that it is installed on; None on other stages."""
        if address.name.startswith(MODULE_PREFIX):
            path, _, side = address.name[len(MODULE_PREFIX) :].rpartition(".")
            site: HookSite = Input(path) if side == "input" else Output(path)
        else:
            assert self.family is not None
            mapped = self.family.points[address.template]
            here = mapped.in_layer(
                address.layer, lambda path: _module(self.model, path) is not None
            )
            if here is None:
                return mapped, None
            site = here
        return site, _module(self.model, site.at(address.layer, address.expert))

    @property
    def _tied(self) -> bool:
        """Whether embedding and unembedding are one; each stage of a pipeline knows its own end."""
        return bool(getattr(getattr(self.model, "config", None), "tie_word_embeddings", False))

    def parameter(self, address: Address) -> tuple[Reading, str]:
        """How a parameter is read, and the dotted path at which it is stored."""
        if self.family is None or address.spec is None:
            return Reading(), address.name
        weight = self.family.parameters[address.template]
        path = fill(weight.path, address.layer)
        if weight.tied and self._tied and not _has_parameter(self.model, path):
            path = weight.tied

        def read(stored: Tensor) -> Tensor:
            mine = stored if address.expert is None else stored[address.expert]
            oriented = mine.T if weight.transposed else mine
            return weight.rows(oriented, self.catalog.sizes)

        return Reading(read, weight.offset), path


def _module(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _has_parameter(model: nn.Module, path: str) -> bool:
    module, _, name = path.rpartition(".")
    holder = _module(model, module)
    return holder is not None and isinstance(getattr(holder, name, None), torch.Tensor)


OWN_ATTENTION = "this model attends by a function of its own, which cannot be looked into"
UNMAPPED = "no family file maps this architecture; its modules are module:{path}.output"


def bind(model: nn.Module, family: Family | None, config: Any = None) -> BoundFamily:
    """Check a family against a loaded model; without one, the model has ``module:`` points only.

    Under pipeline parallelism every rank binds its own stage, and finds there what it holds; what
    any of them has, the model has.
    """
    modules = tuple(name for name, _ in model.named_modules())
    if family is None:
        names = tuple(name for name, _ in model.named_parameters())
        refused = {spec.template: UNMAPPED for spec in POINTS}
        known = standard_sizes(text_config(config)) if config is not None else {}
        limits = {letter: size for letter, size in known.items() if letter in "VP"}
        return BoundFamily(model, None, Catalog(limits, 0, 0, {}, refused, modules, names))
    config = text_config(config)
    family = family.shaped(config) if family.shaped else family
    family = replace(family, points={**family.points, **family.elsewhere(config)})
    sizes = family.sizes(config)
    holder = _module(model, family.layers)
    n_layers = len(holder) if isinstance(holder, nn.ModuleList) else 0
    n_experts = sizes.get("E", 0)
    layers, refused = _find_points(model, family, n_layers)
    refused |= family.lacks(config)
    if not attention.serves(model):
        for template in [t for t in layers if _in_attention(family.points[t])]:
            del layers[template]
            refused[template] = OWN_ATTENTION
    parameters = tuple(_find_parameters(model, family, n_layers, n_experts))
    kinds = _kinds(family.mixers(config), layers.get(ROUTED, ()))
    places = {t: place for t, place in _places(family, config).items() if t not in refused}
    catalog = Catalog(
        *(sizes, n_layers, n_experts, layers, refused, modules, parameters, kinds, places)
    )
    return BoundFamily(model, family, catalog)


ROUTED = "layers.{i}.mlp.router.logits"
"""The point that a layer has whose MLP is a mixture of experts."""


def _kinds(mixers: tuple[str, ...], routed: tuple[int, ...]) -> tuple[str, ...]:
    """The kind of each layer: its mixer, and ``+moe`` where experts are in place of the MLP."""
    return tuple(
        f"{mixer}+moe" if i in routed and mixer != "moe" else mixer
        for i, mixer in enumerate(mixers)
    )


def _in_attention(site: HookSite) -> bool:
    inside = [each for _, each in site.sites] if isinstance(site, ByKind) else [site]
    return any(isinstance(each, InAttention) for each in inside)


def _find_points(
    model: nn.Module, family: Family, n_layers: int
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    layers: dict[str, tuple[int, ...]] = {}
    refused = dict(family.refused)
    for template, site in family.points.items():
        if "{i}" in template:
            having = tuple(i for i in range(n_layers) if _has(model, site, i))
            if having:
                layers[template] = having
            else:
                refused[template] = f"no layer has a module {site.beside or site.path!r}"
        elif _module(model, site.at(None, None)) is None:
            refused[template] = f"the model has no module {site.path!r}"
    return layers, refused


def _places(family: Family, config: Any) -> dict[str, str]:
    """Where each point is, in words. What a norm or a router puts out is computed as its parts are."""
    how = {
        site.path: site.how
        for site in family.points.values()
        if isinstance(site, Inside) and site.part in ("scale", "logits")
    }
    notes, places = family.notes(config), {}
    for template, site in family.points.items():
        said = [site.told()]
        if isinstance(site, Output) and site.path in how:
            said[0] += f": {how[site.path]}"
        if note := notes.get(template):
            said.append(f"{note[0].upper()}{note[1:]}")
        places[template] = ". ".join(said)
    return places


def _has(model: nn.Module, site: HookSite, layer: int) -> bool:
    """Whether a layer has the modules of a site."""
    here = site.in_layer(layer, lambda path: _module(model, path) is not None)
    if here is None:
        return False
    needs = here.needs if isinstance(here, InAttention) else None
    more = [path for path in (needs, here.beside) if path]
    paths = [here.at(layer, 0), *(fill(path, layer) for path in more)]
    return all(_module(model, path) is not None for path in paths)


def _is_of_layer(model: nn.Module, weight: Weight, layer: int | None) -> bool:
    def has(path: str) -> bool:
        return _module(model, fill(path, layer)) is not None

    return (not weight.beside or has(weight.beside)) and not any(map(has, weight.unless))


def _find_parameters(model: nn.Module, family: Family, n_layers: int, n_experts: int) -> list[str]:
    names = []
    for spec in PARAMETERS:
        weight = family.parameters.get(spec.template)
        if weight is None:
            continue
        for layer in range(n_layers) if "{i}" in spec.template else (None,):
            path = fill(weight.path, layer)
            if not _is_of_layer(model, weight, layer):
                continue
            if not _has_parameter(model, path) and not (
                weight.tied and _has_parameter(model, weight.tied)
            ):
                continue
            for expert in range(n_experts) if "{e}" in spec.template else (None,):
                names.append(fill(spec.template, layer, expert))
    return names


__all__ = [
    "BoundFamily",
    "Family",
    "Reading",
    "Sizes",
    "Weight",
    "bind",
    "linear",
    "norm_points",
    "norm_weights",
    "rows_in_blocks",
    "rows_in_turn",
    "rows_of_each_head",
    "rows_of_group",
    "rows_of_part",
    "rows_of_stretch",
    "standard_mixers",
    "standard_sizes",
]
