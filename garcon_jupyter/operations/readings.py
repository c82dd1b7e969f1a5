"""What of a point's value is answered: all of it, or a reduction that was made where the value is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.operations.keepers import keeper
from garcon_jupyter.operations.operation import Door
from garcon_jupyter.operations.plain_data import Array, Form, Plain, PlainAnswer, array
from garcon_jupyter.points import Address, PointSpec

if TYPE_CHECKING:
    from garcon_jupyter.client.probes import Probe
    from garcon_jupyter.client.tokens import Tokens

Reduction = Literal["none", "norm", "mean", "max", "min", "sum", "strongest"]

REDUCTIONS: dict[Reduction, str] = {
    "none": "the value as it is",
    "norm": "the length along the last dimension",
    "mean": "of each unit, over the tokens of a text",
    "max": "of each unit, over the tokens of a text",
    "min": "of each unit, over the tokens of a text",
    "sum": "of each unit, over the tokens of a text",
    "strongest": "the k strongest numbers of each text, with where they are",
}
"""What can be made of a value on the server, and nothing else."""

Order = Literal["largest", "smallest", "size"]

_POSITIONS = ("p", "p_q")
_NO_UNITS = ("b", "p", "p_q", "p_k", "1", "n")


class Read(Plain):
    """What to answer of a point, or of several by a pattern."""

    point: str = Field(
        description='a name or a pattern: "layers.4.mlp.post_activation", "layers.*.resid_post"'
    )
    reduce: Reduction = "none"
    positions: list[int] | None = Field(
        default=None, description="tokens, from 0, or from the end below 0; all where null"
    )
    units: list[int] | None = Field(
        default=None, description="neurons, heads, latents or dimensions; all where null"
    )
    k: int = Field(default=10, ge=1, description="how many are the strongest")
    order: Order = Field(
        default="largest",
        description='what the strongest are ranked by; "size" is whatever the sign',
    )


class RankedPlace(PlainAnswer):
    """A number of an activation, and where it is."""

    value: float | None
    place: list[int] = Field(
        description="along each of the axes after the batch: position, unit, …"
    )


class PointAnswer(PlainAnswer):
    """What was read at a point."""

    point: str
    axes: list[str] = Field(
        description="what each dimension is, by the letters of the table of points"
    )
    dtype: str = Field(description="of the value in the model")
    values: Array | None = None
    strongest: list[list[RankedPlace]] | None = Field(
        default=None, description="of each text, the strongest first"
    )


def sides(address: Address) -> tuple[tuple[str, ...], int | None, int | None]:
    """What the dimensions of a point's value are, and along which positions and units lie."""
    spec = address.spec
    dims = tuple(spec.dims) if isinstance(spec, PointSpec) else ("b", "p", "?")
    if spec is not None and not isinstance(spec, PointSpec):
        dims = tuple(getattr(spec, "dims", dims))
    position = next((n for n, letter in enumerate(dims) if letter in _POSITIONS), None)
    unit = next((n for n, letter in enumerate(dims) if letter not in _NO_UNITS), None)
    return dims, position, unit


def places(
    point: str, what: str, given: Sequence[int] | None, size: int | None
) -> list[int] | None:
    """Positions or units, counted from 0.

    Raises:
        BadRequest: the point has no such ones.
    """
    if given is None:
        return None
    if not given:
        raise BadRequest(f"{what} of {point} is an empty list.", "Leave it out for all.")
    if size is None:
        if min(given) < 0:
            raise BadRequest(
                f"{point}: {what} below 0 have no end to be counted from.", "Count from 0."
            )
        return list(given)
    for number in given:
        if not -size <= number < size:
            raise BadRequest(
                f"{point} has no {what[:-1]} {number}.", f"It has {what} 0 to {size - 1}."
            )
    return [number % size for number in given]


class PointReads:
    """The reads of a request, as probes; and what they have found, as answers."""

    def __init__(self, at: Door, reads: Sequence[Read], tokens: Tokens, name: str) -> None:
        self._at, self._name = at, name
        self._rows: list[tuple[Read, Address]] = []
        catalog = at.model.catalog
        for read in reads:
            at.limits.check("strongest", read.k, f"{read.point} is asked for {read.k:,} places")
            self._rows += [(read, address) for address in catalog.select(read.point)]
        at.limits.check("points", len(self._rows), f"{len(self._rows):,} points are read")
        self._contexts = [f"{name} {number}" for number in range(len(self._rows))]
        self._length = tokens.shape[1]

    def probes(self) -> list[Probe]:
        """Those that keep what is read."""
        return [
            self._at.model.probe_points[address.name].probe(
                self._keeper(read, address), name=context, read_only=True
            )
            for (read, address), context in zip(self._rows, self._contexts, strict=True)
        ]

    def _keeper(self, read: Read, address: Address) -> Any:
        dims, position, unit = sides(address)
        shape = self._at.model.catalog.shape(address)
        size = shape[unit] if unit is not None and unit < len(shape) else None
        if read.positions is not None and position is None:
            raise BadRequest(
                f"{address.name} has no positions: its dimensions are {', '.join(dims)}.",
                "Leave them out.",
            )
        if read.units is not None and unit is None:
            raise BadRequest(
                f"{address.name} has no units: its dimensions are {', '.join(dims)}.",
                "Leave them out.",
            )
        return keeper(
            read.reduce,
            position,
            unit,
            places(address.name, "positions", read.positions, self._length),
            places(address.name, "units", read.units, size if isinstance(size, int) else None),
            read.k,
            read.order,
        )

    def found(self, form: Form) -> list[PointAnswer]:
        """What was read, fetched at once.

        Raises:
            BadRequest: it has more bytes than the limits allow; nothing has travelled.
        """
        if not self._rows:
            return []
        recordings = self._at.model.recordings(fetch=False)
        handles, kinds = [], []
        for (read, address), context in zip(self._rows, self._contexts, strict=True):
            recording = recordings[address.name, context]
            words = ("value", "places", "there") if read.reduce == "strongest" else ("value",)
            handles += [recording.handle(word) for word in words]
            kinds.append(len(words))
        size = sum(handle.nbytes or 0 for handle in handles)
        self._at.limits.check("answer_bytes", size, f"The activations have {size:,} bytes")
        got = self._at.model.fetch(*handles)
        values = iter([got] if len(handles) == 1 else got)
        return [
            self._told(read, address, [next(values) for _ in range(count)], form)
            for (read, address), count in zip(self._rows, kinds, strict=True)
        ]

    def clear(self) -> None:
        """Let go of what was kept on the server."""
        for context in self._contexts:
            self._at.model.clear_recordings(name=context)

    @staticmethod
    def _told(read: Read, address: Address, values: list[Any], form: Form) -> PointAnswer:
        dims, position, _ = sides(address)
        dtype = str(values[0].dtype).removeprefix("torch.")
        if read.reduce == "strongest":
            rows = [
                [
                    RankedPlace(value=float(number), place=[int(x) for x in at])
                    for number, at, there in zip(*row, strict=True)
                    if there
                ]
                for row in zip(values[0], values[1], values[2], strict=True)
            ]
            chosen = [read.positions, read.units]
            _, position, unit = sides(address)
            for dim, given in zip((position, unit), chosen, strict=True):
                if given is not None and dim is not None:
                    rows = [[_as_asked(place, dim - 1, given) for place in row] for row in rows]
            return PointAnswer(point=address.name, axes=list(dims), dtype=dtype, strongest=rows)
        if read.reduce == "norm":
            dims = dims[:-1]
        elif read.reduce != "none":
            gone = 1 if position is None else position
            dims = (*dims[:gone], *dims[gone + 1 :])
        return PointAnswer(
            point=address.name, axes=list(dims), dtype=dtype, values=array(values[0], form)
        )


def _as_asked(place: RankedPlace, dim: int, given: Sequence[int]) -> RankedPlace:
    """A place by the numbers that were asked for, and not by their order."""
    at = list(place.place)
    at[dim] = given[at[dim]]
    return RankedPlace(value=place.value, place=at)
