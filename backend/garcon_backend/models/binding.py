"""A family bound to a loaded model: what that model has of the table, where, and why it lacks the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from garcon_backend.hook_sites import attention
from garcon_backend.hook_sites.other_sites import ByKind
from garcon_backend.hook_sites.sites import (
    HookSite,
    InAttention,
    Input,
    Inside,
    Output,
)
from garcon_backend.hook_sites.staged import norms
from garcon_backend.models.family import Family, Reading, Weight, standard_sizes
from garcon_jupyter.model_files.multimodal import text_config
from garcon_jupyter.points import MODULE_PREFIX, PARAMETERS, POINTS, Address, Catalog, fill


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
        path = _stored_at(self.model, weight, address.layer)
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
        *(sizes, n_layers, n_experts, layers, refused, modules, parameters, kinds, places),
        centred=_centred(family),
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


def _centred(family: Family) -> tuple[str, ...]:
    """The norms that take the mean away, by what the names of their points begin with."""
    scales = {t: site for t, site in family.points.items() if t.endswith(".scale")}
    return tuple(
        template.removesuffix(".scale")
        for template, site in scales.items()
        if isinstance(site, Inside) and site.steps in norms.CENTRED
    )


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


def _stored_at(model: nn.Module, weight: Weight, layer: int | None) -> str:
    """The dotted path at which a layer has a parameter."""
    path = fill(weight.path, layer)
    if weight.counted and layer is not None:
        before = [_module(model, fill(weight.counted, i)) for i in range(layer)]
        path = path.replace("{j}", str(sum(module is not None for module in before)))
    if weight.otherwise and not _has_parameter(model, path):
        path = fill(weight.otherwise, layer)
    return path


def _find_parameters(model: nn.Module, family: Family, n_layers: int, n_experts: int) -> list[str]:
    names = []
    for spec in PARAMETERS:
        weight = family.parameters.get(spec.template)
        if weight is None:
            continue
        for layer in range(n_layers) if "{i}" in spec.template else (None,):
            path = _stored_at(model, weight, layer)
            if not _is_of_layer(model, weight, layer):
                continue
            if not _has_parameter(model, path) and not (
                weight.tied and _has_parameter(model, weight.tied)
            ):
                continue
            for expert in range(n_experts) if "{e}" in spec.template else (None,):
                names.append(fill(spec.template, layer, expert))
    return names
