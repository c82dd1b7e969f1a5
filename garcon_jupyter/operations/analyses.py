"""Experiments of plain data: what each layer would predict, what parts do to an answer, and what patching them restores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from garcon_jupyter import experiments
from garcon_jupyter.errors import UnknownName
from garcon_jupyter.experiments.result import ExperimentResult
from garcon_jupyter.operations.edited_model import edited
from garcon_jupyter.operations.edits import PointEdit
from garcon_jupyter.operations.gradients import Token
from garcon_jupyter.operations.operation import Door, operation
from garcon_jupyter.operations.passes import POINT_ERRORS, Splicing, spliced
from garcon_jupyter.operations.plain_data import Array, Form, Plain, PlainAnswer, array
from garcon_jupyter.operations.prompts import Prompt, read_one, single_ids


class ResultAnswer(PlainAnswer):
    """What an experiment found: numbers with named axes."""

    experiment: str
    says: str = Field(description="what a number is, with its unit and its ends")
    axes: dict[str, list[int | str]] = Field(
        description="each dimension, with what its places are called"
    )
    values: Array
    more: dict[str, Array] = Field(description="what belongs to it and may have other axes")
    facts: dict[str, Any] = Field(description="what it is of: tokens, answers, limits that hold")


def answered(at: Door, found: ExperimentResult, form: Form) -> ResultAnswer:
    """A result, as an answer."""
    size = sum(value.numel() * 8 for value in (found.values, *found.more.values()))
    at.limits.check("answer_bytes", size, f"The result has {size:,} bytes")
    return ResultAnswer(
        experiment=found.experiment,
        says=found.says,
        axes={name: [*labels] for name, labels in found.axes.items()},
        values=array(found.values, form),
        more={name: array(value, form) for name, value in found.more.items()},
        facts=_plain(found.facts),
    )


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as JSON has them: no NaN, no tuples."""
    text = json.dumps(dict(facts), default=str)
    plain: dict[str, Any] = json.loads(text, parse_constant=lambda word: None)
    return plain


class LensRequest(Plain):
    """A text, read by the logit lens."""

    prompt: Prompt
    choices: int = Field(default=5, ge=1, le=50, description="likely tokens of each prediction")
    answer: Token | None = Field(
        default=None, description="a token whose probability and rank are told everywhere"
    )
    target: Literal["last", "next"] = "last"
    edits: list[PointEdit] = Field(default=[])
    form: Form = "lists"


@operation("one forward pass, and one unembedding of each layer", POINT_ERRORS)
def lens(at: Door, asked: LensRequest) -> ResultAnswer:
    """What every layer would predict at each position, by the logit lens (nostalgebraist 2020)."""
    tokens = read_one(at, asked.prompt)
    with edited(at, asked.edits, tokens) as model:
        found = experiments.read_lens(
            model, tokens, target=asked.target, choices=asked.choices, answer=asked.answer
        )
    return answered(at, found, asked.form)


class DirectRequest(Plain):
    """A prompt and an answer, whose logit is taken apart."""

    prompt: Prompt
    answers: list[Token] | None = Field(
        default=None, min_length=1, max_length=2, description="one, or two whose difference is told"
    )
    by: Literal["component", "layer", "head", "neuron", "position"] = "component"
    form: Form = "lists"


@operation("one forward pass", POINT_ERRORS)
def direct_logit_attribution(at: Door, asked: DirectRequest) -> ResultAnswer:
    """What each part of the model writes to a difference of logits by its direct way (Elhage et al. 2021); the parts add up to it."""
    tokens = read_one(at, asked.prompt)
    found = experiments.direct_logit_attribution(
        at.model, tokens, answers=asked.answers, by=asked.by
    )
    return answered(at, found, asked.form)


class EffectsRequest(Plain):
    """A prompt, an answer, and whose effects on it are asked for."""

    prompt: Prompt
    of: list[str] = Field(
        default=["heads"], min_length=1, description='"heads", "neurons", or names of dictionaries'
    )
    targets: list[Token] = Field(default=[], description="by default the two likeliest next tokens")
    distractors: list[Token] = Field(default=[])
    strongest: int = Field(default=50, ge=1)
    by: Literal["activation × gradient", "activation", "direct effect"] = "activation × gradient"
    edits: list[PointEdit] = Field(default=[])
    splice: Splicing | None = None
    form: Form = "lists"


@operation(
    "one forward and one backward pass, and a forward of each of the strongest",
    (*POINT_ERRORS, UnknownName),
)
def effects(at: Door, asked: EffectsRequest) -> ResultAnswer:
    """The node table: activation, write norm, activation × gradient, direct effect and, by exact ablation, total effect of units.

    The columns are those of Transformer Debugger (Mossing et al. 2024). Targets and distractors may be several each: the metric is the
    mean of their logits.
    """
    at.limits.check("strongest", asked.strongest, f"{asked.strongest:,} units are asked for")
    tokens = read_one(at, asked.prompt)
    options: dict[str, Any] = {"strongest": asked.strongest, "by": asked.by}
    if asked.targets:
        ids = [single_ids(at, given, tokens) for given in (asked.targets, asked.distractors)]
        if len(ids[0]) == 1 and len(ids[1]) <= 1:
            options["answers"] = [*ids[0], *ids[1]]
        else:
            options["metric"] = _of_rows(*ids)
    with spliced(at, asked.splice), edited(at, asked.edits, tokens) as model:
        found = experiments.effects(model, tokens, asked.of, **options)
    return answered(at, found, asked.form)


def _of_rows(targets: list[int], distractors: list[int]) -> Any:
    """The metric of each row of a batch."""

    def metric(logits: Any) -> Any:
        last = logits[:, -1].float()
        value = last[:, targets].mean(1)
        return value - last[:, distractors].mean(1) if distractors else value

    return metric


class PatchRequest(Plain):
    """Two prompts of equally many tokens, and what is patched from one to the other."""

    clean: Prompt
    corrupted: Prompt
    points: list[str] = Field(min_length=1, description='patterns, such as "layers.*.resid_pre"')
    by: list[Literal["layer", "position", "head", "kv_head", "unit"]] = Field(
        default=["layer", "position"]
    )
    units: list[int] | None = Field(default=None, description='where "unit" is in by: which')
    answers: list[Token] | None = Field(default=None, min_length=2, max_length=2)
    denoise: bool = Field(
        default=True,
        description="the corrupted run is given values of the clean one; else the other way",
    )
    form: Form = "lists"


@operation("two forward passes, and one more of each cell, many at a time", POINT_ERRORS)
def patch(at: Door, asked: PatchRequest) -> ResultAnswer:
    """Activation patching: what of the clean answer comes back when one cell of the corrupted run is patched, exactly, cell by cell."""
    found = experiments.patch(
        at.model,
        read_one(at, asked.clean),
        read_one(at, asked.corrupted),
        asked.points if len(asked.points) > 1 else asked.points[0],
        by=asked.by,
        answers=asked.answers,
        denoise=asked.denoise,
        units=asked.units,
        progress=False,
    )
    return answered(at, found, asked.form)


class AttributeRequest(Plain):
    """Two prompts, and parts whose patching is estimated by gradients."""

    clean: Prompt
    corrupted: Prompt
    points: str = Field(default="layers.*.attn.z", description="a pattern of points")
    by: list[Literal["layer", "position", "head", "kv_head", "unit"]] = Field(
        default=["layer", "head"]
    )
    answers: list[Token] | None = Field(default=None, min_length=2, max_length=2)
    method: Literal["corrupted", "clean", "mean", "integrated"] = Field(
        default="corrupted", description="where the gradient is taken"
    )
    check: int = Field(
        default=0,
        ge=0,
        le=100,
        description="so many of the strongest cells are patched exactly, to compare",
    )
    form: Form = "lists"


@operation('two forward passes and one backward pass; of "integrated" five', POINT_ERRORS)
def attribute(at: Door, asked: AttributeRequest) -> ResultAnswer:
    """Attribution patching: what patching each cell would restore, to first order, all cells in one pass."""
    found = experiments.attribute(
        at.model,
        read_one(at, asked.clean),
        read_one(at, asked.corrupted),
        asked.points,
        by=asked.by,
        answers=asked.answers,
        method=asked.method,
        check=asked.check,
    )
    return answered(at, found, asked.form)


class HeadScoresRequest(Plain):
    """How many random texts the heads are scored on."""

    rows: int = Field(default=8, ge=1, le=64)
    seed: int = 0
    form: Form = "lists"


@operation("one forward pass over twice as many short random texts", POINT_ERRORS)
def head_scores(at: Door, asked: HeadScoresRequest) -> ResultAnswer:
    """Previous-token, duplicate-token and induction scores of all heads, on random tokens that repeat (Olsson et al. 2022), with a control."""
    return answered(at, experiments.head_scores(at.model, asked.rows, seed=asked.seed), asked.form)
