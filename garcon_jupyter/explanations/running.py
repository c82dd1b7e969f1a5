"""A run: units are explained, the explanations simulated and judged, beside those of other units.

    plan = plan_explanations(atlas, units, with_=model)
    print(plan.cost)          # nothing was asked yet
    found = plan.run()

It goes through three steps, each of which asks the same questions whether it is killed or not: what has been answered is kept, and the same call goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.explanations import prompts
from garcon_jupyter.explanations.asking import (
    AnswerStore,
    Asking,
    ExplanationCost,
    FailedReply,
    Progress,
    Question,
)
from garcon_jupyter.explanations.keeping import ExplanationStore
from garcon_jupyter.explanations.language_models.protocol import LanguageModel, NoUsableReply
from garcon_jupyter.explanations.records.excerpts import UnitExcerpts
from garcon_jupyter.explanations.records.token_pairs import HeadPairs
from garcon_jupyter.explanations.results import (
    ControlScores,
    ExplainedUnits,
    Explanation,
    ScoredExplanation,
    Unexplained,
    scores_of,
)
from garcon_jupyter.explanations.scoring.by_simulation import (
    SimulatedExcerpt,
    SimulationScores,
    score_by_simulation,
)
from garcon_jupyter.explanations.scoring.judging import KINDS, Judgement, judge, judge_pairs
from garcon_jupyter.explanations.scoring.simulating import Simulator

SCORES = ("simulation", *KINDS)
"""What an explanation of a neuron or latent is scored by; that of a head by its pairs."""

LONGEST = 400
"""Characters of an explanation."""

UnitRecord = UnitExcerpts | HeadPairs
"""What a unit is explained from."""


@dataclass(frozen=True)
class ExplanationChoices:
    """How to explain and score.

    Attributes:
        explainer: says what units fire for; None where only given explanations are scored.
        judge: simulates and judges.
        simulator: how the judge simulates; None where nothing is simulated.
        calibration: "none", "linear" or "percentile".
        scores: of :data:`SCORES`.
        controls: how many other units' explanations are scored beside each.
        each: texts of each interval that are judged.
        part: of the record, on which a simulation is scored: "valid" or "test".
        seed: of which texts are judged, and of their order.
    """

    explainer: LanguageModel | None
    judge: LanguageModel
    simulator: Simulator | None
    calibration: str = "linear"
    scores: tuple[str, ...] = ("simulation", "detection")
    controls: int = 1
    each: int = 4
    part: str = "test"
    seed: int = 0


class ExplanationPlan:
    """What a run will do, with what it costs; nothing has been asked.

    Attributes:
        records: what the units are explained from.
        unexplained: units of which there is nothing to explain.
        cost: requests and tokens, beyond what is kept; an upper bound of the requests, as explanations that are not written yet are
            taken to differ.
    """

    def __init__(
        self,
        records: Sequence[UnitRecord],
        unexplained: Sequence[Unexplained],
        choices: ExplanationChoices,
        store: ExplanationStore | None,
        said: Mapping[tuple[str, int], Explanation],
        atlas: str = "",
    ) -> None:
        self.records, self.unexplained = tuple(records), tuple(unexplained)
        self._choices, self._store, self._said, self._atlas = choices, store, said, atlas
        self._answers = AnswerStore(None) if store is None else store.answers()
        self._kept = [] if store is None else store.all()
        dry = Asking(self._answers, dry=True)
        self._go(dry)
        self.cost: ExplanationCost = dry.cost
        self.questions: int = dry.done

    def run(
        self,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> ExplainedUnits:
        """Ask, score, and keep.

        Args:
            progress: called with (answered, of how many, what about) after each answer; from several threads, where the model takes several
                questions at a time.
            cancelled: asked before each question; what says yes ends the run.

        Raises:
            Interrupted: it was cancelled; the same call goes on.
            LanguageModelRefused: a model answers no request.
        """
        asking = Asking(self._answers, False, progress, cancelled, self.questions)
        scored, nothing = self._go(asking)
        return ExplainedUnits(tuple(scored), (*self.unexplained, *nothing), asking.cost)

    def __repr__(self) -> str:
        return f"<{len(self.records)} units to explain: {self.cost}>"

    def _go(self, asking: Asking) -> tuple[list[ScoredExplanation], list[Unexplained]]:
        explained, nothing = self._explained(asking)
        scored = []
        for n, (record, said) in enumerate(explained):
            one = self._scored(asking, record, said, self._others(n, explained))
            scored.append(one)
            if self._store is not None and not asking.dry:
                self._store.add([one])
        return scored, nothing

    # -- explaining --------------------------------------------------------------------------------

    def _explained(
        self, asking: Asking
    ) -> tuple[list[tuple[UnitRecord, Explanation]], list[Unexplained]]:
        given = {n: self._said.get((r.point, r.unit)) for n, r in enumerate(self.records)}
        wanted = [(n, record) for n, record in enumerate(self.records) if given[n] is None]
        explainer = self._choices.explainer
        if wanted and explainer is None:
            record = wanted[0][1]
            raise BadRequest(
                f"Nothing says what {record.name} fires for.",
                "Give with_, the model that explains, or its explanation among `said`.",
            )
        asked: dict[int, Any] = {}
        if explainer is not None:
            questions = [_explain_question(explainer, record) for _, record in wanted]
            answers = asking.all(questions, "explaining", prompts.PLACEHOLDER)
            asked = {n: answer for (n, _), answer in zip(wanted, answers, strict=True)}
        found: list[tuple[UnitRecord, Explanation]] = []
        nothing = []
        for n, record in enumerate(self.records):
            said = given[n]
            if said is None and explainer is not None:
                text = asked[n]
                if isinstance(text, FailedReply):
                    reason = str(NoUsableReply(text.reason, text.detail))
                    nothing.append(Unexplained(record.point, record.unit, reason))
                    continue
                if asking.dry and text == prompts.PLACEHOLDER:
                    text = f"{text} {n}"
                version = prompts.VERSIONS[_explained_by(record)]
                said = Explanation(record.point, record.unit, text, explainer.name, version)
            if said is not None:
                found.append((record, replace(said, record=record.digest)))
        return found, nothing

    def _others(
        self, at: int, explained: Sequence[tuple[UnitRecord, Explanation]]
    ) -> list[Explanation]:
        """Explanations of other units, of the same kind: those of the run that come next, then those that are kept."""
        record, own = explained[at]
        next_ones = [explained[(at + n) % len(explained)] for n in range(1, len(explained))]
        known = [said for other, said in next_ones if isinstance(other, type(record))]
        of_heads = isinstance(record, HeadPairs)
        known += [one.explanation for one in self._kept if ("pairs" in one.judgements) == of_heads]
        found: dict[str, Explanation] = {}
        for said in known:
            if (said.point, said.unit) != (own.point, own.unit) and said.text != own.text:
                found.setdefault(said.text, said)
        return list(found.values())[: self._choices.controls]

    # -- scoring -----------------------------------------------------------------------------------

    def _scored(
        self, asking: Asking, record: UnitRecord, said: Explanation, others: Sequence[Explanation]
    ) -> ScoredExplanation:
        simulation, simulated, judgements = self._held_against(asking, record, said.text)
        controls = []
        for other in others:
            theirs, _, judged = self._held_against(asking, record, other.text)
            controls.append(
                ControlScores(other.point, other.unit, other.text, scores_of(theirs, judged))
            )
        return ScoredExplanation(
            said,
            self._choices.judge.name,
            simulation,
            judgements,
            tuple(controls),
            simulated,
            self._atlas,
        )

    def _held_against(
        self, asking: Asking, record: UnitRecord, text: str
    ) -> tuple[SimulationScores | None, tuple[SimulatedExcerpt, ...], dict[str, Judgement]]:
        chosen = self._choices
        if isinstance(record, HeadPairs):
            found = judge_pairs(asking, chosen.judge, text, record, chosen.seed)
            return None, (), {"pairs": found}
        judgements = {
            kind: judge(asking, chosen.judge, kind, text, record, chosen.each, chosen.seed)
            for kind in KINDS
            if kind in chosen.scores
        }
        if chosen.simulator is None:
            return None, (), judgements
        simulation, simulated = score_by_simulation(
            asking, chosen.simulator, text, record, chosen.calibration, chosen.part
        )
        return simulation, simulated, judgements


def _explained_by(record: UnitRecord) -> str:
    return "explain-pairs" if isinstance(record, HeadPairs) else "explain"


def _explain_question(model: LanguageModel, record: UnitRecord) -> Question:
    if isinstance(record, HeadPairs):
        messages = prompts.explain_pairs(record.train)
    else:
        messages = prompts.explain(record.train, record.largest)

    def ask() -> str:
        said = model.complete(messages, max_tokens=4 * prompts.WORDS)
        text = prompts.cleaned(said.text)
        if not text:
            raise NoUsableReply("empty explanation", f"{said.text!r:.40}")
        if len(text) > LONGEST:
            raise NoUsableReply("explanation too long", f"{len(text)} characters")
        return text

    return Question(
        model,
        prompts.VERSIONS[_explained_by(record)],
        "",
        record.digest,
        "\n".join(one["content"] for one in messages),
        ask,
        longest=2 * prompts.WORDS,
    )
