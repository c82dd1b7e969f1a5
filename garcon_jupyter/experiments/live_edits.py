"""Edits of a model while one types: a text and a slider in, predictions and activations out.

An outcome costs one forward; the first of a text costs another, without edits, which is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from garcon_jupyter.client.probes import Probe
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import (
    contexts,
    decoder,
    keep_flat,
    one_text,
    whole_pieces,
)

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

CHOICES, WITHOUT = 8, 3
"""Next tokens that are shown: the likeliest with the edits, and the likeliest without them."""


class EditLike(Protocol):
    """A change of the model at a point, such as :class:`garcon_jupyter.widgets.Edit`.

    Attributes:
        point: name of the point.
        kind: "ablate" takes away the share `strength` of the value; "scale" multiplies by it; "add" adds so much of a
            direction.
        strength: of the edit.
        unit: the neuron, dimension or head that is edited; -1 for all.
        direction: name of a direction to add, where `unit` is -1.
    """

    @property
    def point(self) -> str:
        """Name of the point."""
        ...

    @property
    def kind(self) -> str:
        """What is done."""
        ...

    @property
    def strength(self) -> float:
        """How much of it."""
        ...

    @property
    def unit(self) -> int:
        """What is edited; -1 for all."""
        ...

    @property
    def direction(self) -> str:
        """What is added."""
        ...


@dataclass(frozen=True)
class Edited:
    """What the model makes of a text, with edits and without.

    Attributes:
        tokens: token strings.
        predictions: (next token, probability with the edits, probability without), likeliest first.
        activations: name of a point to its values [token, unit] with the edits and without.
    """

    tokens: list[str]
    predictions: list[tuple[str, float, float]]
    activations: dict[str, tuple[Tensor, Tensor]]


@dataclass
class Bench:
    """Runs a text with edits; remembers the text without them.

    Attributes:
        points: whose values are shown.
        directions: by name, vectors [D] that can be added.
    """

    rmodel: Client
    points: Sequence[str]
    directions: Mapping[str, Any] = field(default_factory=dict)
    _plain: tuple[str, Tensor, dict[str, Tensor]] | None = None

    def outcome(self, text: str, edits: Sequence[EditLike]) -> Edited:
        """What the model makes of a text, with edits and without.

        Raises:
            BadRequest: a unit that the point lacks, or no direction to add.
        """
        tokens = one_text(self.rmodel, text)
        if self._plain is None or self._plain[0] != text:
            self._plain = (text, *self._run(tokens, ()))
        _, before, was = self._plain
        after, now = self._run(tokens, edits) if edits else (before, was)
        best = after.topk(min(CHOICES, len(after))).indices.tolist()
        best += [
            t for t in before.topk(min(WITHOUT, len(before))).indices.tolist() if t not in best
        ]
        words = decoder(self.rmodel, best)
        rows = [(words[token], float(after[token]), float(before[token])) for token in best]
        values = {name: (now[name], was[name]) for name in self.points}
        return Edited(whole_pieces(self.rmodel, tokens), rows, values)

    def _run(self, tokens: Any, edits: Sequence[EditLike]) -> tuple[Tensor, dict[str, Tensor]]:
        """Probabilities of the next token [V], and the values of the points, [p, unit]."""
        rmodel = self.rmodel

        def last(logits: Any) -> Any:
            return logits[0, -1].float().softmax(-1).cpu()

        with contexts(rmodel, "live") as name:
            probes = [self._probe(edit, name) for edit in edits]
            for point in self.points:  # after the edits: they see what the model goes on with
                probes.append(
                    rmodel.probe_points[point].probe(keep_flat, name=name, read_only=True)
                )
            chances = rmodel.forward(tokens, probes=probes, logits=last)
            if not self.points:
                return chances, {}
            recordings = rmodel.recordings(fetch=False)
            handles = [recordings[point, name].handle("values") for point in self.points]
            fetched = rmodel.fetch(*handles)
        values = fetched if len(handles) > 1 else [fetched]
        return chances, dict(zip(self.points, values, strict=True))

    def _probe(self, edit: EditLike, name: str) -> Probe:
        point = self.rmodel.probe_points[edit.point]
        units = point.shape[2] if len(point.shape) > 2 else 0
        if edit.unit >= 0 and (not isinstance(units, int) or edit.unit >= units):
            raise BadRequest(
                f"{edit.point} has no unit {edit.unit}.",
                f"It has units 0 to {int(units or 0) - 1}.",
            )
        direction = None
        if edit.kind == "add" and edit.unit < 0:
            if edit.direction not in self.directions:
                known = ", ".join(self.directions) or "none; give directions={name: vector}"
                raise BadRequest(f"There is no direction {edit.direction!r} to add.", f"{known}.")
            direction = self.directions[edit.direction]
        return point.probe(_change(edit, direction), name=name)


def _change(edit: EditLike, direction: Any) -> Callable[[Any, Any], None]:
    """The probe that makes an edit at [b, p, unit, …]."""
    kind, strength, unit = edit.kind, edit.strength, edit.unit

    def change(save_ctx: Any, tensor: Any) -> None:
        import torch

        part = tensor if unit < 0 else tensor[:, :, unit]
        if kind == "ablate":
            part.mul_(1.0 - strength)
        elif kind == "scale":
            part.mul_(strength)
        elif direction is None:
            part.add_(strength)
        else:
            vector = torch.as_tensor(direction).to(tensor.device, tensor.dtype)
            tensor.add_(strength * vector)

    return change
