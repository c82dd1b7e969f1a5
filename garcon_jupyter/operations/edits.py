"""What a request changes in the model while it is run: at points, for this request alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.operations.keepers import ProbeFunction, changer, keep_tensor
from garcon_jupyter.operations.operation import Door
from garcon_jupyter.operations.plain_data import Plain
from garcon_jupyter.operations.prompts import Prompts, read
from garcon_jupyter.operations.readings import places, sides
from garcon_jupyter.points import Address

if TYPE_CHECKING:
    from garcon_jupyter.client.probes import Probe
    from garcon_jupyter.client.recordings import Recording
    from garcon_jupyter.client.tokens import Tokens

Kind = Literal["ablate", "set", "scale", "add", "patch"]

KINDS: dict[Kind, str] = {
    "ablate": "to 0",
    "set": "to `value`",
    "scale": "times `value`",
    "add": "plus `value`: a number, or a direction to steer along",
    "patch": "what it is in the run of `prompts`, which has as many tokens",
}
"""What can be done at a point, and nothing else."""


class PointEdit(Plain):
    """A change of the model while a request is run."""

    point: str = Field(description="a name or a pattern")
    kind: Kind = Field(
        default="ablate", description="; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
    )
    value: float | list[float] | None = Field(
        default=None,
        description="a number, or one for each unit that is edited (of all units: a vector of them)",
    )
    positions: list[int] | None = Field(
        default=None, description="tokens, from 0, or from the end below 0; all where null"
    )
    units: list[int] | None = Field(
        default=None, description="neurons, heads, latents or dimensions; all where null"
    )
    prompts: Prompts | None = Field(default=None, description='of "patch": where the value is from')

    @model_validator(mode="after")
    def _together(self) -> PointEdit:
        if (self.kind == "patch") != (self.prompts is not None):
            raise ValueError('prompts are given for kind="patch", and for no other')
        if (self.kind in ("set", "scale", "add")) != (self.value is not None):
            raise ValueError(
                f"kind={self.kind!r} takes {'a' if self.value is None else 'no'} value"
            )
        return self


class Editing:
    """The edits of a request, as probes."""

    def __init__(
        self, at: Door, edits: Sequence[PointEdit], tokens: Tokens, name: str, grows: bool = False
    ) -> None:
        """Check them against the model.

        Args:
            grows: the texts grow while they are read, as in a generation, so that positions mean nothing.

        Raises:
            UnknownPoint, PointUnavailable: there is no such point.
            BadRequest: positions, units or numbers that the point has not.
        """
        self._at, self._name, self._tokens = at, f"{name} source", tokens
        at.limits.check("edits", len(edits), f"There are {len(edits):,} edits")
        if grows and any(edit.positions is not None or edit.kind == "patch" for edit in edits):
            raise BadRequest(
                "A generation is edited at all positions: there are more at every step.",
                'Leave positions out, and "patch".',
            )
        select = at.model.catalog.select
        self._rows = [(edit, address) for edit in edits for address in select(edit.point)]
        at.limits.check("edits", len(self._rows), f"{len(self._rows):,} points are edited")
        self._held: list[object] = []
        self._makers = [self._changer(edit, address) for edit, address in self._rows]

    def _changer(self, edit: PointEdit, address: Address) -> ProbeFunction:
        dims, position, unit = sides(address)
        shape = self._at.model.catalog.shape(address)
        size = shape[unit] if unit is not None and unit < len(shape) else None
        units = places(address.name, "units", edit.units, size if isinstance(size, int) else None)
        if (edit.positions is not None and position is None) or (
            edit.units is not None and unit is None
        ):
            raise BadRequest(
                f"{address.name} has the dimensions {', '.join(dims)}, and is not edited by position and unit.",
                "Leave them out.",
            )
        if isinstance(edit.value, list):
            wanted = len(units) if units is not None else size
            if isinstance(wanted, int) and len(edit.value) not in (wanted, shape[-1]):
                raise BadRequest(
                    f"{address.name} is given {len(edit.value)} numbers, and {wanted} units are edited.",
                    "Give one number for each, or one for all.",
                )
        length = self._tokens.shape[1]
        at = places(address.name, "positions", edit.positions, length)
        return changer(edit.kind, position, unit, at, units, edit.value)

    def probes(self) -> list[Probe]:
        """Those that edit; what is patched from another run is read first."""
        sources = self._sources()
        points = self._at.model.probe_points
        made = []
        for number, ((edit, address), change) in enumerate(
            zip(self._rows, self._makers, strict=True)
        ):
            source = sources.get((id(edit), address.name))
            made.append(
                points[address.name].probe(
                    change, name=f"{self._name} edit {number}", source=source
                )
            )
        return made

    def _sources(self) -> dict[tuple[int, str], Recording]:
        """The recordings that patches are from, by edit and point."""
        found: dict[tuple[int, str], Recording] = {}
        model = self._at.model
        for number, edit in enumerate({id(edit): edit for edit, _ in self._rows}.values()):
            if edit.prompts is None:
                continue
            tokens = read(self._at, edit.prompts)
            if tokens.shape != self._tokens.shape:
                raise BadRequest(
                    f"The prompts that are patched from have {tokens.shape} tokens, and the others {self._tokens.shape}.",
                    "Give texts of equally many tokens.",
                )
            names = [address.name for each, address in self._rows if each is edit]
            label = f"{self._name} {number}"
            probes = [
                model.probe_points[name].probe(keep_tensor, name=label, read_only=True)
                for name in names
            ]
            model.forward(tokens, probes=probes, logits="none")
            recordings = model.recordings(fetch=False)
            self._held.append(recordings)  # the server keeps what somebody holds
            found |= {(id(edit), name): recordings[name, label] for name in names}
        return found

    def clear(self) -> None:
        """Let go of what was kept on the server."""
        self._held.clear()
        for number in range(len(self._rows)):
            self._at.model.clear_recordings(name=f"{self._name} {number}")
