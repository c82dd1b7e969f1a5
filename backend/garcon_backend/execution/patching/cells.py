"""The cells of a request, checked: which text each is patched in, where, and from which layer on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from garcon_backend.models.binding import BoundFamily
from garcon_jupyter.errors import BadRequest, PointUnavailable
from garcon_jupyter.points import MODULE_PREFIX, Address, PointSpec
from garcon_jupyter.wire import requests as wire

ALL = -1
"""In a place: all of that dimension."""

Place = tuple[int, ...]
"""An index along each dimension of a value but its first, which is that of rows; :data:`ALL` for all of it."""


SOURCES = -1
"""Whose values a place is given: those of the sources of the cell's text. Else it is the number of a text, and after
texts come cells."""


@dataclass(frozen=True)
class PlacePatch:
    """A place of a cell that is given other values: at which point, whose, and where in its value."""

    point: str
    source: int
    place: Place


@dataclass
class PatchedCell:
    """A text in which some places of some points are given other values.

    Attributes:
        number: of it, where texts are counted, and then cells.
        text: which, by its number.
        begins: the first layer that can put out something else than without.
        patches: its places.
    """

    number: int
    text: int
    begins: int
    patches: tuple[PlacePatch, ...]


@dataclass(frozen=True)
class RowPatch:
    """A place of a row that is given what other rows have there, of several the mean."""

    row: int
    sources: tuple[int, ...]
    place: Place


def checked(request: wire.Patch, bound: BoundFamily) -> tuple[list[PatchedCell], list[Address]]:
    """The cells of a request, and its points.

    Raises:
        UnknownPoint, PointUnavailable: the model has no such point, or it cannot be patched by rows.
        BadRequest: the request makes no sense.
    """
    points = [_point(bound, name) for name in request.points]
    texts = len(request.texts)
    patches = _integers(request.patches) if request.cells else []
    if not all(0 <= text < texts for text in (*request.cells, *_flat(request.sources))):
        raise _senseless("a cell is of a text that there is not")
    if len(request.sources) != texts or not all(request.sources):
        raise _senseless(f"there are {texts} texts, and sources of {len(request.sources)}")
    of_cell: list[list[PlacePatch]] = [[] for _ in request.cells]
    for cell, point, source, *place in patches:
        if not (0 <= cell < len(of_cell) and 0 <= point < len(points)) or min(place) < ALL:
            raise _senseless("a patch is of a cell or a point that there is not")
        if not SOURCES <= source < texts + (0 if request.exact else cell):
            raise _senseless("a cell is given values of what does not come before it")
        of_cell[cell].append(PlacePatch(points[point].name, source, tuple(place)))
    if not all(of_cell):
        raise _senseless("a cell has no patch")
    layers = {address.name: layer_of(bound, address) for address in points}
    cells = [
        PatchedCell(number, text, min(layers[patch.point] for patch in mine), tuple(mine))
        for number, (text, mine) in enumerate(zip(request.cells, of_cell, strict=True), texts)
    ]
    for one in reversed(cells):  # what gives a value is there when it is taken
        for patch in one.patches:
            if patch.source >= texts:
                giver = cells[patch.source - texts]
                giver.begins = min(giver.begins, layers[patch.point])
    return cells, points


def together(cells: Sequence[PatchedCell]) -> list[list[PatchedCell]]:
    """Cells in groups, of which none is given values of another group's; those first that begin first."""
    group: dict[int, list[PatchedCell]] = {}
    for cell in cells:
        mine = [cell]
        for patch in cell.patches:
            theirs = group.get(patch.source, mine)
            if theirs is not mine:
                theirs += mine
                group |= {one.number: theirs for one in mine}
                mine = theirs
        group[cell.number] = mine
    distinct = {id(several): several for several in group.values()}
    return sorted(distinct.values(), key=lambda several: min(one.begins for one in several))


def layer_of(bound: BoundFamily, address: Address) -> int:
    """The first layer whose output a change at a point can reach; 0 where that is not known."""
    if address.layer is not None:
        return address.layer
    if bound.family is None:
        return 0
    if address.name.startswith(MODULE_PREFIX):
        inside = address.name.removeprefix(f"{MODULE_PREFIX}{bound.family.layers}.")
        number = inside.partition(".")[0]
        return int(number) if inside != address.name and number.isdigit() else 0
    return bound.catalog.n_layers - 1 if address.name.startswith("final_norm") else 0


def patches_by_point(
    rows: Iterable[tuple[int, PatchedCell]], sources: Sequence[tuple[int, ...]]
) -> dict[str, list[RowPatch]]:
    """What is done at each point.

    Args:
        rows: cells, each with its row in the batch.
        sources: of each text, those whose values its cells are given; texts are the first rows.
    """
    found: dict[str, list[RowPatch]] = {}
    numbered = list(rows)
    row_of = {cell.number: row for row, cell in numbered}
    for row, cell in numbered:
        for patch in cell.patches:
            one = (row_of.get(patch.source, patch.source),)
            given = sources[cell.text] if patch.source == SOURCES else one
            found.setdefault(patch.point, []).append(RowPatch(row, given, patch.place))
    return found


def _point(bound: BoundFamily, name: str) -> Address:
    address = bound.catalog.point(name)
    if address.expert is not None or address.name in ("logits", "pos_embed.out"):
        raise PointUnavailable(f"{name} cannot be patched: {_why(address)}.", _OTHERS)
    return address


def _why(address: Address) -> str:
    if address.name == "logits":
        return "the metric reads the logits, and nothing comes after them"
    if address.expert is not None:
        return "its rows are the tokens that an expert is given, which differ from text to text"
    assert isinstance(address.spec, PointSpec)
    return "positions are the same in all texts"


_OTHERS = "Patch a point that each token has for itself, such as layers.*.resid_pre."


def _integers(patches: Any) -> list[list[int]]:
    """The rows of a table of integers, of which the first columns say cell, point and source."""
    try:
        table = torch.as_tensor(patches)
    except (TypeError, ValueError, RuntimeError):
        raise _senseless("its patches are no table") from None
    if table.is_floating_point() or table.dim() != 2 or table.shape[1] < 4:
        raise _senseless(f"its patches are a table of {list(table.shape)}")
    rows: list[list[int]] = table.tolist()
    return rows


def _flat(sources: Iterable[Iterable[int]]) -> Iterator[int]:
    for several in sources:
        yield from several


def _senseless(what: str) -> BadRequest:
    return BadRequest(
        f"A request for patches makes no sense: {what}.", "Use the same version on both sides."
    )
