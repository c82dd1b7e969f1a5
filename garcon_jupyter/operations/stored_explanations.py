"""What language models have said of units, as it is stored beside atlases, with how well it predicts them."""

from __future__ import annotations

from pydantic import Field, model_validator

from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.explanations import ScoredExplanation, open_explanations
from garcon_jupyter.operations.operation import Door, operation
from garcon_jupyter.operations.plain_data import Plain, PlainAnswer
from garcon_jupyter.operations.unit_records import chosen_atlases


class ExplanationsRequest(Plain):
    """A unit whose explanations are asked for, or words that these have."""

    point: str | None = None
    unit: int | None = Field(default=None, ge=0)
    words: str | None = Field(default=None, min_length=1)
    atlases: list[str] | None = Field(
        default=None, description="that are searched, in this order; all where null"
    )
    most: int = Field(default=50, ge=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> ExplanationsRequest:
        if (self.point is None) != (self.unit is None) or (self.point is None) == (
            self.words is None
        ):
            raise ValueError("give point and unit, or words, and not both")
        return self


class ExplanationSaid(PlainAnswer):
    """What is said of a unit, and how well that predicts it."""

    atlas: str
    point: str
    unit: int
    text: str
    model: str = Field(description="that says it")
    judge: str = Field(description="the model that simulated and judged")
    scores: dict[str, float | None] = Field(description="null where a score is undefined")
    undefined: dict[str, str] = Field(description="of each undefined score the reason")
    ahead: dict[str, float | None] = Field(
        description="of each score what it is more than the mean of other units' explanations on the same texts"
    )


class ExplanationsAnswer(PlainAnswer):
    """Explanations, atlas by atlas."""

    explanations: list[ExplanationSaid]


@operation("nothing", (UnknownName, BadRequest), quick=True)
def explanations(at: Door, asked: ExplanationsRequest) -> ExplanationsAnswer:
    """What language models have said of a unit, or which units they say some words of, with scores. Answered without a model."""
    at.limits.check("strongest", asked.most, f"{asked.most:,} explanations are asked for")
    found = []
    for name, atlas in chosen_atlases(at, asked.atlases):
        store = open_explanations(atlas)
        if asked.words is not None:
            those = store.search(asked.words)
        else:
            those = store.of(str(asked.point), int(asked.unit or 0))
        found += [_said(name, each) for each in those]
    return ExplanationsAnswer(explanations=found[: asked.most])


def _said(atlas: str, one: ScoredExplanation) -> ExplanationSaid:
    scores = one.scores
    return ExplanationSaid(
        atlas=atlas,
        point=one.explanation.point,
        unit=one.explanation.unit,
        text=one.explanation.text,
        model=one.explanation.model,
        judge=one.judge,
        scores={name: score.value for name, score in scores.items()},
        undefined={name: score.reason for name, score in scores.items() if score.value is None},
        ahead={name: one.standing(name).ahead for name in scores},
    )
