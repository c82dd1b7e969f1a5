"""What comes of explaining: plain values that JSON can hold, and are the same again when they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from garcon_jupyter.client import display_hooks
from garcon_jupyter.explanations.asking import ExplanationCost
from garcon_jupyter.explanations.scoring.by_simulation import SimulatedExcerpt, SimulationScores
from garcon_jupyter.explanations.scoring.judging import Judgement
from garcon_jupyter.explanations.scoring.scores import Score


@dataclass(frozen=True)
class Explanation:
    """What a unit is said to fire for.

    Attributes:
        point: name of the point; in other people's files, of the layer.
        unit: number of the unit.
        text: what is said.
        model: who says it; "" where nobody knows.
        prompt: version of the prompt that it answered; in other people's files, their name for the way.
        record: digest of what it was made from; "" where that is not known.
    """

    point: str
    unit: int
    text: str
    model: str = ""
    prompt: str = ""
    record: str = ""


@dataclass(frozen=True)
class ControlScores:
    """Scores of another unit's explanation, on the same texts and by the same models.

    Attributes:
        point, unit: whose explanation it is.
        text: that explanation.
        scores: by name.
    """

    point: str
    unit: int
    text: str
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class Standing:
    """An explanation's score among those of other units' explanations.

    Attributes:
        ahead: its score less the mean of theirs; None where one of them is undefined.
        rank: 1 for the best; ties count against it.
        of: how many have a score, it included.
    """

    ahead: float | None
    rank: int | None
    of: int

    def __str__(self) -> str:
        if self.ahead is None or self.rank is None:
            return "no control"
        return f"{self.ahead:+.3f} over others', rank {self.rank} of {self.of}"


@dataclass(frozen=True)
class ScoredExplanation:
    """An explanation with its scores, and those of other units' explanations beside them.

    Attributes:
        explanation: what is said.
        judge: name of the model that judged and simulated.
        simulation: scores by simulation; None where they were not asked for.
        judgements: by kind: "detection", "fuzzing", "intruder"; of heads "pairs".
        controls: the same scores of other units' explanations, on this unit's texts.
        simulated: the texts that were simulated, without those that failed.
        atlas: digest of the atlas's index; "" where there is none.
    """

    explanation: Explanation
    judge: str = ""
    simulation: SimulationScores | None = None
    judgements: Mapping[str, Judgement] = field(default_factory=dict)
    controls: tuple[ControlScores, ...] = ()
    simulated: tuple[SimulatedExcerpt, ...] = ()
    atlas: str = ""

    @property
    def scores(self) -> dict[str, Score]:
        """All scores by name; those of a simulation are "correlation", "r_squared" and "absolute_deviation"."""
        return scores_of(self.simulation, self.judgements)

    def standing(self, name: str) -> Standing:
        """A score among those of the controls.

        Args:
            name: of the score, as in :attr:`scores`.
        """
        own = self.scores[name].value
        others = [one.scores[name].value for one in self.controls if name in one.scores]
        known = [value for value in others if value is not None]
        if own is None or not known:
            return Standing(None, None, len(known) + (own is not None))
        rank = 1 + sum(value >= own for value in known)
        whole = len(known) == len(others)
        return Standing(
            own - sum(known) / len(known) if whole else None,
            rank,
            len(known) + 1,
        )

    def __str__(self) -> str:
        lines = [f"{self.explanation.point} {self.explanation.unit}: {self.explanation.text}"]
        for name, score in self.scores.items():
            beside = f" ({self.standing(name)})" if self.controls else ""
            lines.append(f"  {name} {score}, n={score.n}{beside}")
        attempts = {kind: one.attempts for kind, one in self.judgements.items()}
        if self.simulation:
            attempts["simulation"] = self.simulation.attempts
        lines += [f"  {kind}: {told}" for kind, told in attempts.items() if told.failed]
        return "\n".join(lines)


def scores_of(
    simulation: SimulationScores | None, judgements: Mapping[str, Judgement]
) -> dict[str, Score]:
    """All scores by name."""
    found = {kind: one.score for kind, one in judgements.items()}
    if simulation is None:
        return found
    return {
        "correlation": simulation.correlation,
        "r_squared": simulation.r_squared,
        "absolute_deviation": simulation.absolute_deviation,
        **found,
    }


@dataclass(frozen=True)
class Unexplained:
    """A unit of which nothing is said, and why.

    Attributes:
        point, unit: which.
        reason: it never fires, or the model gave no usable reply.
    """

    point: str
    unit: int
    reason: str


@dataclass(frozen=True)
class ExplainedUnits:
    """What a run came to.

    Attributes:
        scored: explanations with their scores, in the order of the units.
        unexplained: units of which nothing is said.
        cost: what was asked.
    """

    scored: tuple[ScoredExplanation, ...]
    unexplained: tuple[Unexplained, ...]
    cost: ExplanationCost

    def __str__(self) -> str:
        lines = [str(one) for one in self.scored]
        lines += [f"{one.point} {one.unit}: nothing, {one.reason}" for one in self.unexplained]
        return "\n".join([*lines, f"Asked: {self.cost}."])

    def _repr_html_(self) -> str | None:
        """A table, where something is registered that draws it."""
        return display_hooks.html(self)

    def __iter__(self) -> Iterator[ScoredExplanation]:
        return iter(self.scored)

    def __len__(self) -> int:
        return len(self.scored)
