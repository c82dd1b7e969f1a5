"""An explanation scored by simulation: texts that nobody was shown are simulated, calibrated and compared with what the unit does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from garcon_jupyter.explanations.asking import Asking, Attempts, FailedReply, Question
from garcon_jupyter.explanations.json_values import from_json
from garcon_jupyter.explanations.records.excerpts import Excerpt, UnitExcerpts, digest_of
from garcon_jupyter.explanations.scoring import calibration as calibrations
from garcon_jupyter.explanations.scoring import scores
from garcon_jupyter.explanations.scoring.calibration import Calibration
from garcon_jupyter.explanations.scoring.scores import Score
from garcon_jupyter.explanations.scoring.simulating import Simulation, Simulator


@dataclass(frozen=True)
class SimulatedExcerpt:
    """A text with what the unit does on it, and what a simulator said.

    Attributes:
        excerpt: the text and the unit's values.
        simulation: levels.
        predicted: values, by the calibration; empty where there is none.
    """

    excerpt: Excerpt
    simulation: Simulation
    predicted: tuple[float, ...] = ()


@dataclass(frozen=True)
class SimulationScores:
    """How well a simulation by an explanation predicts the unit.

    Attributes:
        simulator: name of the model.
        method: "all-at-once", "token-by-token" or "json".
        prompt: version of its prompt.
        part: of the record, on which it is scored.
        calibration: from levels to values.
        correlation, r_squared, absolute_deviation: :mod:`garcon_jupyter.explanations.scoring.scores`.
        attempts: texts that were simulated, calibration included, and how many without a usable reply.
        mass: the probability that was on levels, on average; None where it is not known.
    """

    simulator: str
    method: str
    prompt: str
    part: str
    calibration: Calibration
    correlation: Score
    r_squared: Score
    absolute_deviation: Score
    attempts: Attempts
    mass: float | None = None


def score_by_simulation(
    asking: Asking,
    simulator: Simulator,
    text: str,
    record: UnitExcerpts,
    kind: str,
    part: str = "test",
) -> tuple[SimulationScores, tuple[SimulatedExcerpt, ...]]:
    """Simulate a unit by an explanation, on texts that nobody was shown, and compare.

    Texts without a usable reply are counted, and are in no score; where none is left, scores are undefined.

    Args:
        asking: asks.
        simulator: simulates.
        text: the explanation.
        record: of the unit.
        kind: of calibration.
        part: on which it is scored.
    """
    fitting = record.calibration if kind != "none" else ()
    scoring = record.part(part)
    questions = [_simulate_question(simulator, text, one) for one in (*fitting, *scoring)]
    blank = {"expected": None}
    answers = asking.all(questions, "simulation", blank)
    answers = [one if one is not blank else FailedReply("not asked") for one in answers]
    pairs = list(zip((*fitting, *scoring), answers, strict=True))
    fitted = _usable(pairs[: len(fitting)])
    scored = _usable(pairs[len(fitting) :])
    way = calibrations.fitted(kind, *_sides(fitted), record.largest, simulator.top)
    true, levels = _sides(scored)
    if way.reason:
        predicted: list[list[float]] = []
        explained = [scores.Score(None, sum(map(len, true)), way.reason)] * 2
    else:
        predicted = way.predicted(levels)
        explained = [scores.r_squared(true, predicted), scores.absolute_deviation(true, predicted)]
    masses = [one.mass for _, one in scored if one.mass is not None]
    found = SimulationScores(
        simulator.model.name,
        simulator.method,
        simulator.prompt,
        part,
        way,
        scores.correlation(true, levels),
        explained[0],
        explained[1],
        Attempts.of(answers),
        sum(masses) / len(masses) if masses else None,
    )
    rows = predicted or [[] for _ in scored]
    simulated = tuple(
        SimulatedExcerpt(excerpt, simulation, tuple(row))
        for (excerpt, simulation), row in zip(scored, rows, strict=True)
    )
    return found, simulated


def _simulate_question(simulator: Simulator, text: str, excerpt: Excerpt) -> Question:
    prompt, requests, longest = simulator.asked(text, excerpt)

    def ask() -> dict[str, Any]:
        return asdict(simulator.simulate(text, excerpt.tokens))

    return Question(
        simulator.model,
        simulator.prompt,
        text,
        digest_of(list(excerpt.tokens)),
        prompt,
        ask,
        requests,
        longest,
        (simulator.top,),
    )


_Simulated = list[tuple[Excerpt, Simulation]]


def _usable(pairs: Iterable[tuple[Excerpt, Any]]) -> _Simulated:
    return [
        (excerpt, from_json(Simulation, answer))
        for excerpt, answer in pairs
        if not isinstance(answer, FailedReply)
    ]


def _sides(simulated: _Simulated) -> tuple[list[tuple[float, ...]], list[tuple[float, ...]]]:
    return [one.values for one, _ in simulated], [said.expected for _, said in simulated]
