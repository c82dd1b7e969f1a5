"""The final norm and the unembedding as one direction: what a vector in the stream adds to a difference of logits at one place.

At one place of one text the norm is a linear map, once its denominator is what it is there: of a stream x, with gain w, bias β,

    norm(x) = w ⊙ (x − mean x) / scale + β          (RMSNorm takes no mean away, and has no β)

so a difference of two logits is x · direction + constant, with direction = centred(w ⊙ (u₁ − u₂)) / scale. A norm computed for each part
by itself would be another function, and its parts would not add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import contexts
from garcon_jupyter.experiments.lenses.unembedding import final_norm
from garcon_jupyter.experiments.reading.stream_parts import fetched

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

COMPARED = 64
"""Tokens of the vocabulary whose logits are held against the unembedding."""

LAST_NORM = ("final_norm.scale", "final_norm.out", "logits")


@dataclass(frozen=True)
class Readout:
    """What turns the stream at one place into a difference of logits.

    Attributes:
        direction: float64 [D].
        constant: what biases of norm and unembedding add.
        difference: the model's own difference of logits.
        uncapped: that of what its final norm puts out, through the unembedding, times what logits are multiplied by.
        capped: whether these are not the same, as logits are soft-capped.
    """

    direction: Tensor
    constant: float
    difference: float
    uncapped: float
    capped: bool


def read_out(
    rmodel: Client, tokens: Tokens, position: int, answers: tuple[int, ...], tolerance: float
) -> Readout:
    """The direction of the difference of two answers' logits (or of the logit of one) at a position of a text.

    Raises:
        BadRequest: the logits are something else than the final norm through the unembedding.
    """
    import torch

    vocabulary = rmodel.catalog.sizes["V"]
    others = torch.linspace(0, vocabulary - 1, min(COMPARED, vocabulary)).long().tolist()
    ids = [*answers, *others]
    scale, out, logits = _at(rmodel, tokens, position, ids)
    rows = rmodel.get_parameter("unembed.weight", (ids,)).double()
    made = rows @ out + _optional(rmodel, "unembed.bias", (ids,))
    factor, capped = _factor(made, logits, tolerance)
    signs = torch.tensor([1.0, -1.0][: len(answers)], dtype=torch.float64)
    own = slice(0, len(answers))
    asked = signs @ rows[own] * factor
    direction = asked * _optional(rmodel, "final_norm.weight", default=1.0)
    if final_norm(rmodel).centred:
        direction = direction - direction.mean()
    biases = made[own] - rows[own] @ out
    constant = asked @ _optional(rmodel, "final_norm.bias", size=len(out)) + signs @ biases * factor
    return Readout(
        direction / scale,
        float(constant),
        float(signs @ logits[own]),
        float(signs @ made[own] * factor),
        capped,
    )


def _at(
    rmodel: Client, tokens: Tokens, position: int, ids: list[int]
) -> tuple[float, Tensor, Tensor]:
    """The norm's denominator, what it puts out, and the logits of some tokens, at one position."""

    def keep_place(save_ctx: Any, tensor: Any) -> None:
        save_ctx.place = tensor[0, position].float().cpu()

    def keep_some(save_ctx: Any, tensor: Any) -> None:
        save_ctx.place = tensor[0, position, ids].float().cpu()

    with contexts(rmodel, "readout") as name:
        points = rmodel.probe_points
        functions = (keep_place, keep_place, keep_some)
        probes = [
            points[point].probe(function, name=name, read_only=True)
            for point, function in zip(LAST_NORM, functions, strict=True)
        ]
        rmodel.forward(tokens, probes=probes, logits="none")
        scale, out, logits = fetched(rmodel, LAST_NORM, name, "place").values()
    return float(scale), out, logits


def _factor(made: Tensor, logits: Tensor, tolerance: float) -> tuple[float, bool]:
    """What the logits are a multiple of the unembedding by, and whether they are none but go up and down with it.

    Raises:
        BadRequest: they do not.
    """
    factor = float(logits @ made / (made @ made))
    if (logits - factor * made).norm() <= tolerance * logits.norm():
        return (1.0 if abs(factor - 1) <= tolerance else factor), False
    order = made.argsort()
    if not bool((logits[order].diff() >= -tolerance * logits.abs().max()).all()):
        raise BadRequest(
            "The logits of this model are more than its final norm and its unembedding.",
            "A direct attribution of them would have to do what else the model does there.",
        )
    return 1.0, True


def _optional(
    rmodel: Client, name: str, index: Any = None, default: float = 0.0, size: int = 1
) -> Tensor:
    """A parameter in float64; where the model has none, what stands for it."""
    import torch

    if name in rmodel.catalog.parameters:
        return rmodel.get_parameter(name, index).double()
    return torch.full((size,), default, dtype=torch.float64)
