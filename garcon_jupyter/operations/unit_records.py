"""What atlases say of units: stored records, which need no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.operations.operation import Door, operation
from garcon_jupyter.operations.plain_data import Plain, PlainAnswer

if TYPE_CHECKING:
    from garcon_jupyter.atlas import Atlas, Example, Record


class AtlasesRequest(Plain):
    """Nothing needs to be said."""


class AtlasSaid(PlainAnswer):
    """Stored records of all units of some points."""

    name: str
    points: dict[str, int] = Field(description="each point, and how many units it has")
    tokens: int = Field(description="of the data that they were made from")


class AtlasesAnswer(PlainAnswer):
    """The atlases, in the order in which they are searched."""

    atlases: list[AtlasSaid]


@operation("nothing", quick=True)
def atlases(at: Door, asked: AtlasesRequest) -> AtlasesAnswer:
    """Which records of units are stored. Answered without a model."""
    return AtlasesAnswer(
        atlases=[
            AtlasSaid(name=name, points=dict(atlas.units), tokens=atlas.tokens)
            for name, atlas in at.atlases.items()
        ]
    )


class UnitRequest(Plain):
    """A unit whose record is asked for."""

    point: str
    unit: int = Field(ge=0)
    atlases: list[str] | None = Field(
        default=None, description="that are searched, in this order; all where null"
    )
    examples: int = Field(default=10, ge=0, description="the strongest, and of the random sample")


class UnitExample(PlainAnswer):
    """The unit on a stretch of text."""

    tokens: list[str]
    ids: list[int]
    values: list[float | None]
    at: int = Field(description="which of the tokens it is about")
    document: int
    offset: int


class UnitAnswer(PlainAnswer):
    """What is stored of a unit."""

    atlas: str = Field(description="in which it was found")
    point: str
    unit: int
    label: str
    rate: float = Field(description="share of the tokens at which it is above 0")
    moments: dict[str, float | None]
    strongest: list[UnitExample]
    sample: list[UnitExample] = Field(description="drawn uniformly, the smallest value first")
    correlated: list[tuple[int, float]] = Field(
        description="units of the same point; empty where not stored"
    )
    more_likely: list[tuple[str, float]] = Field(
        description="tokens, and what it adds to their logits"
    )
    less_likely: list[tuple[str, float]]


@operation("nothing", (UnknownName, BadRequest), quick=True)
def unit(at: Door, asked: UnitRequest) -> UnitAnswer:
    """The stored record of a unit, from the first atlas that has it. Answered without a model."""
    at.limits.check("strongest", asked.examples, f"{asked.examples:,} examples are asked for")
    for name, atlas in chosen_atlases(at, asked.atlases):
        if asked.unit < atlas.units.get(asked.point, 0):
            return _told(name, atlas[asked.point, asked.unit], asked.examples)
    raise UnknownName.among(
        "stored point",
        asked.point,
        [point for atlas in at.atlases.values() for point in atlas.points],
        f"No atlas has a unit {asked.unit} of it.",
    )


def chosen_atlases(at: Door, names: list[str] | None) -> list[tuple[str, Atlas]]:
    """The atlases of these names, in this order.

    Raises:
        UnknownName: none of this name is registered.
    """
    for name in names or ():
        if name not in at.atlases:
            raise UnknownName.among("atlas", name, at.atlases, "The owner registers them.")
    return [(name, at.atlases[name]) for name in (at.atlases if names is None else names)]


def _told(name: str, record: Record, examples: int) -> UnitAnswer:
    def stored(wanted: str, down: bool = False) -> list[tuple[str, float]]:
        try:
            return record.logits(down)
        except UnknownName:
            return []

    try:
        correlated = record.correlated
    except UnknownName:
        correlated = []
    return UnitAnswer(
        atlas=name,
        point=record.point,
        unit=record.unit,
        label=record.label,
        rate=record.rate,
        moments={**record.moments},
        strongest=[_example(each) for each in record.examples[:examples]],
        sample=[_example(each) for each in record.sample[:examples]],
        correlated=correlated,
        more_likely=stored("logits_up"),
        less_likely=stored("logits_down", down=True),
    )


def _example(example: Example) -> UnitExample:
    return UnitExample(
        tokens=example.tokens,
        ids=example.ids,
        values=[*example.values],
        at=example.at,
        document=example.document,
        offset=example.offset,
    )


class SearchRequest(Plain):
    """A token, whose units are asked for."""

    token: str = Field(min_length=1, description="its text; spaces around it do not count")
    at_least: float = Field(
        default=0.5, ge=0, le=1, description="at what share of a unit's strongest examples"
    )
    atlases: list[str] | None = None
    most: int = Field(default=50, ge=1)


class UnitFound(PlainAnswer):
    """A unit that was found."""

    atlas: str
    point: str
    unit: int
    label: str


class SearchAnswer(PlainAnswer):
    """Units whose strongest examples are at the token, those with the largest share first, atlas by atlas."""

    units: list[UnitFound]


@operation("nothing", (UnknownName,), quick=True)
def search(at: Door, asked: SearchRequest) -> SearchAnswer:
    """Units whose strongest examples are at a token. Answered without a model."""
    at.limits.check("strongest", asked.most, f"{asked.most:,} units are asked for")
    found = [
        UnitFound(atlas=name, point=record.point, unit=record.unit, label=record.label)
        for name, atlas in chosen_atlases(at, asked.atlases)
        for record in atlas.search(asked.token, asked.at_least)[: asked.most]
    ]
    return SearchAnswer(units=found[: asked.most])
