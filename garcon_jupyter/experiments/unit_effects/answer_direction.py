"""What a vector in the stream adds to the answer by its direct way: the gradient at the final norm, its denominator held.

With the gradient g of the metric at what the final norm puts out, its gain w and its denominator, a vector v of the stream that
leaves the last layer adds v · centred(w ⊙ g) / scale (centred where it is a LayerNorm). A gradient through the norm as it is would
take away what is along the stream itself, and parts would not add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.errors import BadRequest, PointUnavailable
from garcon_jupyter.experiments.clean_passes import contexts, need
from garcon_jupyter.experiments.lenses.unembedding import final_norm
from garcon_jupyter.experiments.reading.stream_parts import Part, fetched, stream_parts
from garcon_jupyter.experiments.reading.within_parts import ATTENTION, MLP, writers
from garcon_jupyter.experiments.unit_effects.writers import UnitWriter, is_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from garcon_jupyter.client.client import Client

OUT, SCALE = "final_norm.out", "final_norm.scale"


@dataclass
class AnswerDirection:
    """The direction of an answer at each position, as writers' entries see it.

    Attributes:
        at_end: float64 [p, D], of the stream that leaves the last layer; zeros where the metric does not look.
        metric: what it is at the run.
        lacks: why there is none, in words; "" where there is one.
    """

    rmodel: Client
    tokens: Tokens
    at_end: Tensor
    metric: float
    tolerance: float
    lacks: str = ""
    _parts: dict[int, list[Part]] = field(default_factory=dict)
    _outputs: dict[tuple[int, str], dict[int, Tensor]] = field(default_factory=dict)

    def positions(self) -> list[int]:
        """Where it is not zero."""
        found: list[int] = self.at_end.abs().sum(-1).nonzero().flatten().tolist()
        return found

    def seen_from(self, writer: UnitWriter) -> Tensor | None:
        """As the gradient of the direct way at a writer's entry, [p, D]; None where it has no direct way that is linear."""
        import torch

        if self.lacks or not writer.stream:
            return None
        whole = torch.zeros_like(self.at_end)
        try:
            for position in self.positions():
                whole[position] = self._at(writer, position)
        except (BadRequest, PointUnavailable) as error:
            self.lacks = self.lacks or str(error).split("\n")[0]
            return None
        return whole

    def _at(self, writer: UnitWriter, position: int) -> Tensor:
        if position not in self._parts:
            self._parts[position] = stream_parts(self.rmodel, self.tokens, position, self.tolerance)
        parts, direction = self._parts[position], self.at_end[position]
        layer = writer.layer
        if is_output(writer.stream) and layer is not None:
            half = ATTENTION if ".attn." in writer.stream else MLP
            key = position, half.kind
            if key not in self._outputs:
                found = writers(
                    self.rmodel, self.tokens, position, half, parts, direction, self.tolerance
                )
                self._outputs[key] = {each.layer: each.direction for each in found}
            return self._outputs[key][layer]
        after = writer.stream.endswith("resid_post") and layer is not None
        return direction * _factor(parts, None if layer is None else layer + after)


def _factor(parts: Sequence[Part], layer: int | None) -> float:
    """What the stream is multiplied by after it enters a layer."""
    if layer is None:
        return parts[0].factor
    return next((part.factor for part in parts if part.layer == layer), 1.0)


def answer_direction(
    rmodel: Client, tokens: Tokens, loss: Callable[[Any], Any], reads: str, tolerance: float
) -> AnswerDirection:
    """One forward and one backward, of which the gradient at the final norm travels.

    Args:
        loss: logits [row, p, V] to a number for each row.
        reads: the logits that it is given.
    """
    import torch

    need(rmodel, "A direct effect", OUT, SCALE)

    def keep_first(save_ctx: Any, tensor: Any) -> None:
        save_ctx.kept = tensor[0].cpu().double()

    with contexts(rmodel, "answer direction") as name:
        probes = [
            rmodel.probe_points[SCALE].probe(keep_first, name=name, read_only=True),
            rmodel.probe_points[OUT].probe(keep_first, grad=True, name=name, read_only=True),
        ]
        measured = rmodel.backward(tokens, loss, probes=probes, logits=reads, each_row=True)
        scale, gradient = fetched(rmodel, [SCALE, OUT], name, "kept").values()
    gain = "final_norm.weight"
    if gain in rmodel.catalog.parameters:
        gradient = gradient * rmodel.get_parameter(gain).double()
    if final_norm(rmodel).centred:
        gradient = gradient - gradient.mean(-1, keepdim=True)
    direction = torch.as_tensor(gradient / scale.view(len(gradient), -1))
    return AnswerDirection(rmodel, tokens, direction, float(measured[0]), tolerance)
