"""What heads, neurons and source positions have of the part that they are in.

What attention adds to the stream is what it puts out, perhaps times a number or through a norm of its own (a post-norm), whose
denominator is what it is at this place. So each head has a share of it, and the bias another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import contexts
from garcon_jupyter.experiments.reading.stream_parts import Part, at_place, fetched
from garcon_jupyter.points import fill

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client


@dataclass(frozen=True)
class Half:
    """A half of a block, which has smaller parts.

    Attributes:
        kind: of part of the stream.
        out: the point of what it puts out.
        post_norm: the norm between that and the stream, in models that have one.
        bias: of its output projection.
    """

    kind: str
    out: str
    post_norm: str
    bias: str


ATTENTION = Half(
    "attention",
    "layers.{i}.attn.out",
    "layers.{i}.attn.post_norm",
    "layers.{i}.attn.o_proj.bias",
)
MLP = Half("mlp", "layers.{i}.mlp.out", "layers.{i}.mlp.post_norm", "layers.{i}.mlp.down_proj.bias")


@dataclass(frozen=True)
class LogitWriter:
    """A half of one layer, as it writes to the logits at a place.

    Attributes:
        direction: float64 [D], what turns its output into a difference of logits.
        constant: what biases add.
        whole: the difference of logits that the half writes.
    """

    layer: int
    direction: Tensor
    constant: float
    whole: float


def writers(
    rmodel: Client,
    tokens: Tokens,
    position: int,
    half: Half,
    parts: list[Part],
    direction: Tensor,
    tolerance: float,
) -> list[LogitWriter]:
    """The halves of those layers that have one.

    Args:
        direction: of the stream that leaves the last layer.

    Raises:
        BadRequest: no layer has one; or what a half adds to the stream is more than its output, a multiple of it, or a norm.
    """
    mine = [part for part in parts if part.kind == half.kind]
    if not mine:
        raise BadRequest(
            f"No layer of this model adds what {half.kind} puts out to its stream by itself.",
            'by="component" tells what its layers add.',
        )
    points = [fill(half.out, part.layer) for part in mine]
    outputs = at_place(rmodel, tokens, position, points)
    return [
        _writer(rmodel, half, part, outputs[point], direction, tolerance)
        for part, point in zip(mine, points, strict=True)
    ]


def _writer(
    rmodel: Client, half: Half, part: Part, out: Tensor, direction: Tensor, tolerance: float
) -> LogitWriter:
    """One half: by which gain and which denominator its output enters the stream is found out on the values."""
    import torch

    def parameter(template: str) -> Tensor | None:
        name = fill(template, part.layer)
        return rmodel.get_parameter(name).double() if name in rmodel.catalog.parameters else None

    layer = part.layer or 0
    norm = parameter(f"{half.post_norm}.weight")
    gain = torch.ones_like(out) if norm is None else norm * part.factor
    shift = parameter(f"{half.post_norm}.bias")
    shift = torch.zeros_like(out) if shift is None else shift * part.factor
    bias = parameter(half.bias)
    for centred in (False, True):
        shown = out - out.mean() if centred else out
        normed = gain * shown
        scale = float((part.vector - shift) @ normed / (normed @ normed))
        if float((part.vector - shift - scale * normed).norm()) > tolerance * float(
            part.vector.norm() + shift.norm()
        ):
            continue
        towards = direction * gain * scale
        towards = towards - towards.mean() if centred else towards
        constant = shift @ direction + (0.0 if bias is None else bias @ towards)
        return LogitWriter(layer, towards, float(constant), float(part.vector @ direction))
    raise BadRequest(
        f"What {half.kind} adds to the stream in layer {layer} is no multiple and no norm of what it puts out.",
        'Its parts cannot be told apart; by="component" tells of it as a whole.',
    )


def by_head(
    rmodel: Client, tokens: Tokens, position: int, found: list[LogitWriter]
) -> list[Tensor]:
    """What each head writes, [head] for each layer."""

    def dot(direction: Tensor) -> Callable[[Any, Any], None]:
        def heads(save_ctx: Any, tensor: Any) -> None:
            towards = direction.to(tensor.device)
            save_ctx.written = (tensor[0, position].float() @ towards).cpu()

        return heads

    probes = {fill("layers.{i}.attn.head_out", w.layer): dot(w.direction.float()) for w in found}
    return _written(rmodel, tokens, probes)


def by_neuron(
    rmodel: Client, tokens: Tokens, position: int, found: list[LogitWriter]
) -> list[Tensor]:
    """What each neuron writes, [neuron] for each layer."""

    def dot(direction: Tensor, weight: str) -> Callable[[Any, Any], None]:
        def neurons(save_ctx: Any, tensor: Any) -> None:
            columns = save_ctx.params[weight]
            towards = direction.to(columns.device, columns.dtype) @ columns
            save_ctx.written = (tensor[0, position] * towards).float().cpu()

        return neurons

    last = "mlp.post_activation_normed"
    if f"layers.{{i}}.{last}" in rmodel.catalog.refused:
        last = "mlp.post_activation"
    probes, params = {}, {}
    for writer in found:
        point, weight = (
            fill(f"layers.{{i}}.{name}", writer.layer) for name in (last, "mlp.down_proj")
        )
        probes[point], params[point] = dot(writer.direction.float(), weight), [weight]
    return _written(rmodel, tokens, probes, params)


def by_source(
    rmodel: Client, tokens: Tokens, position: int, found: list[LogitWriter]
) -> list[Tensor]:
    """What all heads of a layer bring from each position, [position] for each layer: pattern × value × output projection."""

    def weights(save_ctx: Any, tensor: Any) -> None:
        save_ctx.written = tensor[0, :, position].float().cpu()  # [head, source]

    def dot(direction: Tensor, weight: str, heads: int) -> Callable[[Any, Any], None]:
        def values(save_ctx: Any, tensor: Any) -> None:
            columns = save_ctx.params[weight]
            towards = (direction.to(columns.device, columns.dtype) @ columns).view(heads, -1)
            mine = tensor[0].repeat_interleave(heads // tensor.shape[2], 1)
            save_ctx.written = (mine * towards).float().sum(-1).T.cpu()  # [head, source]

        return values

    heads = rmodel.catalog.sizes["H"]
    patterns, probes, params = {}, {}, {}
    for writer in found:
        pattern, value, weight = (
            fill(f"layers.{{i}}.attn.{name}", writer.layer) for name in ("pattern", "v", "o_proj")
        )
        patterns[pattern] = weights
        probes[value] = dot(writer.direction.float(), weight, heads)
        params[value] = [weight]
    written = _written(rmodel, tokens, {**patterns, **probes}, params)
    half = len(found)
    return [(a * v).sum(0) for a, v in zip(written[:half], written[half:], strict=True)]


def _written(
    rmodel: Client,
    tokens: Tokens,
    functions: dict[str, Callable[[Any, Any], None]],
    params: dict[str, list[str]] | None = None,
) -> list[Tensor]:
    """One forward with a probe at each point; what each leaves, in order."""
    with contexts(rmodel, "written") as name:
        probes = [
            rmodel.probe_points[point].probe(
                function, name=name, read_only=True, params=(params or {}).get(point, ())
            )
            for point, function in functions.items()
        ]
        rmodel.forward(tokens, probes=probes, logits="none")
        return [*fetched(rmodel, [*functions], name, "written").values()]
