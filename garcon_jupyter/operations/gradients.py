"""What a change of an activation does to the answer, to first order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.operations.edits import Editing, PointEdit
from garcon_jupyter.operations.operation import Door, operation
from garcon_jupyter.operations.passes import POINT_ERRORS, Splicing, new_name, spliced
from garcon_jupyter.operations.plain_data import Array, Form, Plain, PlainAnswer, TextTokens, array
from garcon_jupyter.operations.prompts import Prompt, TokenId, read_one, single_ids, told
from garcon_jupyter.points import PointSpec

Token = str | TokenId
"""The text of one token, or its id."""


class BackwardRequest(Plain):
    """A prompt, an answer, and points at which its gradient is asked for."""

    prompt: Prompt
    targets: list[Token] = Field(
        min_length=1, description="the metric is the mean of their logits after the last token …"
    )
    distractors: list[Token] = Field(default=[], description="… less the mean of these")
    points: list[str] = Field(min_length=1, description="names or patterns")
    edits: list[PointEdit] = Field(default=[])
    splice: Splicing | None = None
    form: Form = "lists"


class PointGradient(PlainAnswer):
    """Of a point: its value, the metric's gradient, and their product."""

    point: str
    axes: list[str]
    activation: Array
    gradient: Array
    product: Array = Field(
        description="activation × gradient: what the metric would lose at 0, to first order"
    )


class BackwardAnswer(PlainAnswer):
    """The metric, and what it depends on."""

    tokens: TextTokens
    metric: float
    targets: list[int]
    distractors: list[int]
    points: list[PointGradient]


@operation("one forward and one backward pass", POINT_ERRORS)
def backward(at: Door, asked: BackwardRequest) -> BackwardAnswer:
    """Activation × gradient at points, of the mean logit of target tokens less that of distractors after the last token."""
    tokens = read_one(at, asked.prompt)
    targets = single_ids(at, asked.targets, tokens)
    distractors = single_ids(at, asked.distractors, tokens)
    catalog = at.model.catalog
    addresses = [address for pattern in asked.points for address in catalog.select(pattern)]
    at.limits.check("points", len(addresses), f"{len(addresses):,} points are read")
    for address in addresses:
        if isinstance(address.spec, PointSpec) and not address.spec.differentiable:
            raise BadRequest(
                f"{address.name} has no gradient: {address.spec.what}.", "Leave it out."
            )
    name = new_name()
    editing = Editing(at, asked.edits, tokens, name)
    points = at.model.probe_points
    probes = editing.probes()
    for address in addresses:
        probes.append(points[address.name].probe(_keep_value, name=name, read_only=True))
        probes.append(
            points[address.name].probe(_keep_gradient, name=name, read_only=True, grad=True)
        )
    try:
        with spliced(at, asked.splice):
            metric = at.model.backward(
                tokens, mean_logits(targets, distractors), probes=probes, logits="last"
            )
        recordings = at.model.recordings(fetch=False)
        kept = [recordings[address.name, name] for address in addresses]
        handles = [recording.handle(word) for recording in kept for word in ("value", "gradient")]
        size = sum(handle.nbytes or 0 for handle in handles) * 3 // 2
        at.limits.check("answer_bytes", size, f"Activations and gradients have {size:,} bytes")
        values = iter(at.model.fetch(*handles))
    finally:
        at.model.clear_recordings(name=name)
        editing.clear()
    found = []
    for address in addresses:
        value, gradient = next(values), next(values)
        axes = address.spec.dims if isinstance(address.spec, PointSpec) else ()
        found.append(
            PointGradient(
                point=address.name,
                axes=[*axes],
                activation=array(value, asked.form),
                gradient=array(gradient, asked.form),
                product=array(value * gradient, asked.form),
            )
        )
    return BackwardAnswer(
        tokens=told(at, tokens)[0],
        metric=float(metric),
        targets=targets,
        distractors=distractors,
        points=found,
    )


def _keep_value(save_ctx: Any, tensor: Any) -> None:
    save_ctx.value = tensor.detach().float().cpu()


def _keep_gradient(save_ctx: Any, tensor: Any) -> None:
    save_ctx.gradient = tensor.float().cpu()


def mean_logits(targets: list[int], distractors: list[int]) -> Callable[[Any], Any]:
    """A metric: the mean logit of some tokens less that of others, after the last token of the first text."""

    def metric(logits: Any) -> Any:
        last = logits[0, -1].float()
        value = last[targets].mean()
        return value - last[distractors].mean() if distractors else value

    return metric
