"""What a model is, what it has and lacks, and what it uses."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from garcon_jupyter.errors import UnknownPoint
from garcon_jupyter.operations.limits import RequestLimits
from garcon_jupyter.operations.operation import Door, operation
from garcon_jupyter.operations.plain_data import Plain, PlainAnswer
from garcon_jupyter.points import POINTS, Catalog, PointSpec, pattern_regex


class DescribeRequest(Plain):
    """Nothing needs to be said."""


class ModelSaid(PlainAnswer):
    """The model."""

    name: str = Field(description="of the server")
    path: str
    architecture: str
    layers: int
    sizes: dict[str, int] = Field(description="what each letter of a shape is for this model")
    dtype: str
    ranks: int
    adapters: list[str]
    checked: str = Field(
        description="what came of holding it against its own implementation at launch"
    )


class DictionarySaid(PlainAnswer):
    """A dictionary that is loaded beside the model."""

    name: str
    kind: str
    latents: int
    formula: str
    points: list[str]


class DescribeAnswer(PlainAnswer):
    """The model, what is beside it, and how much a request may ask for."""

    model: ModelSaid | None = Field(description="null where there are stored records alone")
    dictionaries: list[DictionarySaid]
    atlases: list[str] = Field(description="names of stored records of units")
    limits: RequestLimits


@operation("nothing", quick=True)
def describe(at: Door, asked: DescribeRequest) -> DescribeAnswer:
    """What model is served, which dictionaries and atlases are beside it, and how much one request may ask for."""
    return DescribeAnswer(
        model=None if at.connected is None else _model(at),
        dictionaries=[] if at.connected is None else _dictionaries(at.model.catalog),
        atlases=list(at.atlases),
        limits=at.limits,
    )


def _model(at: Door) -> ModelSaid:
    facts, catalog = at.model.facts, at.model.catalog
    said: dict[str, Any] = facts["model"]
    return ModelSaid(
        name=facts["name"],
        path=str(facts["path"]),
        architecture=said["architecture"],
        layers=catalog.n_layers,
        sizes={letter: int(size) for letter, size in catalog.sizes.items()},
        dtype=said["dtype"],
        ranks=int(facts["ranks"]) if isinstance(facts.get("ranks"), int) else 1,
        adapters=list(at.model.adapters),
        checked=str(said.get("check", {}).get("outcome", "")),
    )


def _dictionaries(catalog: Catalog) -> list[DictionarySaid]:
    return [
        DictionarySaid(
            name=each.name,
            kind=each.layout,
            latents=each.latents,
            formula=each.formula,
            points=list(each.names()),
        )
        for each in tuple(catalog.dictionaries.values())
    ]


class PointsRequest(Plain):
    """Which points are asked for."""

    pattern: str | None = Field(
        default=None, description='such as "layers.*.attn.z"; all where null'
    )


class PointSaid(PlainAnswer):
    """A point of the table, in all layers that have it."""

    template: str = Field(description="its name; {i} stands for the layer, {e} for an expert")
    what: str
    axes: list[str]
    shape: list[int | str] = Field(description="a letter where it depends on the tokens")
    layers: list[int] | None = Field(
        description="that have it; null for a point outside of the layers"
    )
    where: str = Field(description="in the model's modules, and how it is computed there")
    gradients: bool = Field(description="whether it has any; indices have none")


class PointLacking(PlainAnswer):
    """A point that the table has and this model has not."""

    template: str
    why: str


class PointsAnswer(PlainAnswer):
    """The points of the model, and those that it lacks, each with the reason."""

    points: list[PointSaid]
    lacking: list[PointLacking]
    dictionary_points: list[str] = Field(description="points of loaded dictionaries")


@operation("nothing", (UnknownPoint,), quick=True)
def points(at: Door, asked: PointsRequest) -> PointsAnswer:
    """The probe points of the model with their shapes, and for each that it lacks the reason."""
    catalog = at.model.catalog
    chosen = [
        spec for spec in POINTS if asked.pattern is None or _meant(catalog, spec, asked.pattern)
    ]
    of_dictionaries = catalog.dictionary_names()
    if asked.pattern is not None:
        if not chosen:
            catalog.select(asked.pattern)  # the error that names the nearest ones
        named = {address.name for address in catalog.select(asked.pattern)} if not chosen else set()
        of_dictionaries = [name for name in of_dictionaries if name in named]
    return PointsAnswer(
        points=[_point(catalog, spec) for spec in chosen if spec.template not in catalog.refused],
        lacking=[
            PointLacking(template=spec.template, why=catalog.refused[spec.template])
            for spec in chosen
            if spec.template in catalog.refused
        ],
        dictionary_points=of_dictionaries,
    )


def _meant(catalog: Catalog, spec: PointSpec, pattern: str) -> bool:
    """Whether a template, or one of its layers, is meant by a pattern."""
    regex = pattern_regex(pattern)
    layers = range(catalog.n_layers) if "{i}" in spec.template else [0]
    names = (spec.template.replace("{i}", str(i)).replace("{e}", "0") for i in layers)
    return spec.template == pattern or any(regex.fullmatch(name) for name in names)


def _point(catalog: Catalog, spec: PointSpec) -> PointSaid:
    inside = "{i}" in spec.template
    sizes = (catalog.size(letter) for letter in spec.dims)
    return PointSaid(
        template=spec.template,
        what=spec.what,
        axes=list(spec.dims),
        shape=[
            letter if size is None else size for letter, size in zip(spec.dims, sizes, strict=True)
        ],
        layers=[*catalog.layers.get(spec.template, ())] if inside else None,
        where=catalog.places.get(spec.template, ""),
        gradients=spec.differentiable,
    )


class StatusRequest(Plain):
    """Nothing needs to be said."""


class StatusAnswer(PlainAnswer):
    """What the server does and uses now."""

    running: dict[str, Any] | None
    waiting: list[dict[str, Any]]
    clients: list[dict[str, Any]]
    ranks: list[dict[str, Any]] = Field(
        description="of each process: its device and its memory in bytes"
    )
    idle_left: float | None = Field(
        description="seconds until it ends, if nobody asks anything; null for never"
    )


@operation("nothing", quick=True)
def status(at: Door, asked: StatusRequest) -> StatusAnswer:
    """What runs, what waits, who is there, and the memory of each process. Answered while the model is busy."""
    told = at.model.status()
    return StatusAnswer.model_validate({key: told[key] for key in StatusAnswer.model_fields})
