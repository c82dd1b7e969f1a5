"""Scores that need no simulation: does a language model, told an explanation, know where the unit fires?

* **Detection**: which texts does the unit fire on? (Paulo et al. 2024, *Automatically interpreting millions of features*)
* **Fuzzing**: the same texts with tokens marked; in some those on which it fires, in others as many on which it does not. Are the marked ones right?
* **Intruder**: four texts on which it fires and one on which it does not. Which is that one?
* **Pairs**: for an attention head, does it attend from this token to that one? (Mossing et al. 2024)

The texts on which the unit fires are from all intervals of its values, not only where it is strongest: what holds of the strongest examples
often does not hold of the others. None was seen by the model that explained.

A model that tells probabilities of a prompt rates each text, by the probability of "yes" against "no"; any other answers with JSON, five texts to a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from garcon_jupyter.explanations import prompts
from garcon_jupyter.explanations.asking import Asking, Attempts, FailedReply, Question
from garcon_jupyter.explanations.language_models.protocol import (
    PROMPT_LOGPROBS,
    LanguageModel,
    NoUsableReply,
)
from garcon_jupyter.explanations.records.excerpts import QUIET, Excerpt, UnitExcerpts, digest_of
from garcon_jupyter.explanations.records.token_pairs import HeadPairs
from garcon_jupyter.explanations.scoring import scores
from garcon_jupyter.explanations.scoring.scores import Score
from garcon_jupyter.explanations.scoring.simulating import read_json

TOGETHER = 5
"""Texts to a question."""

KINDS = ("detection", "fuzzing", "intruder")
"""What is judged of a unit."""


@dataclass(frozen=True)
class IntervalScore:
    """A score of one interval of a unit's values.

    Attributes:
        low, high: the smallest and the largest of its excerpts' strongest values.
        score: of those against the quiet ones.
    """

    low: float
    high: float
    score: Score


@dataclass(frozen=True)
class Judgement:
    """What a judge made of an explanation.

    Attributes:
        kind: "detection", "fuzzing", "intruder" or "pairs".
        score: over all intervals.
        intervals: of each interval, the lowest first.
        attempts: how many questions, and how many without a usable answer.
        assumed: how many of the quiet texts are taken to be quiet, and not known to be.
    """

    kind: str
    score: Score
    intervals: tuple[IntervalScore, ...]
    attempts: Attempts
    assumed: int = 0


@dataclass(frozen=True)
class _Item:
    """A text to judge.

    Attributes:
        text: as it is shown.
        holds: whether the explanation should hold for it.
        interval: of the unit's values; -1 for a quiet one.
    """

    text: str
    holds: bool
    interval: int


def judge(
    asking: Asking,
    model: LanguageModel,
    kind: str,
    explanation: str,
    record: UnitExcerpts,
    each: int = 4,
    seed: int = 0,
) -> Judgement:
    """Judge an explanation of a unit.

    Args:
        asking: asks.
        model: the judge.
        kind: "detection", "fuzzing" or "intruder".
        explanation: that is judged.
        record: of the unit that it is held against.
        each: texts of each interval; there are as many quiet ones as firing ones, where there are enough.
        seed: of which, and of their order.

    Returns:
        Its score is the area under the ROC curve (:func:`garcon_jupyter.explanations.scoring.scores.auc`), of intruders the share that was found.
    """
    rng = np.random.default_rng(seed)
    firing = [(n, one) for n, part in enumerate(record.intervals) for one in _some(part, each, rng)]
    quiet = _some(record.quiet, max(len(firing), 1), rng)
    assumed = sum(one.assumed for one in quiet)
    if kind == "intruder":
        return _intruders(asking, model, explanation, record, firing, quiet, rng)
    if kind == "detection":
        items = [_Item(prompts.shown(one), True, n) for n, one in firing]
        items += [_Item(prompts.shown(one), False, -1) for one in quiet]
    else:
        items, assumed = _fuzzed(record, firing, rng), 0
    answers = _rated(asking, model, kind, explanation, _shuffled(items, rng))
    return _judgement(kind, answers, record, assumed)


def judge_pairs(
    asking: Asking, model: LanguageModel, explanation: str, record: HeadPairs, seed: int = 0
) -> Judgement:
    """Judge an explanation of an attention head: does it tell the strongest pairs from random ones?"""
    items = [_Item(prompts.marked_pair(one), True, 0) for one in record.test]
    items += [_Item(prompts.marked_pair(one), False, -1) for one in record.quiet]
    rng = np.random.default_rng(seed)
    answers = _rated(asking, model, "pairs", explanation, _shuffled(items, rng))
    return _judgement("pairs", answers, None, 0)


def _fuzzed(
    record: UnitExcerpts, firing: Sequence[tuple[int, Excerpt]], rng: np.random.Generator
) -> list[_Item]:
    """Each text twice: with the tokens marked on which the unit fires, and with as many others."""
    items = []
    for n, one in firing:
        values = np.asarray(one.values)
        least = max(QUIET * record.largest, 0.5 * one.peak)
        right = np.flatnonzero(values >= least)
        others = np.flatnonzero(values <= QUIET * record.largest)
        if not len(others):
            continue  # it fires at every token, so no marks are wrong
        wrong = rng.permutation(others)[: len(right)]
        items.append(_Item(prompts.marked(one, right.tolist()), True, n))
        items.append(_Item(prompts.marked(one, wrong.tolist()), False, n))
    return items


def _some(excerpts: Sequence[Excerpt], count: int, rng: np.random.Generator) -> list[Excerpt]:
    return [excerpts[int(n)] for n in rng.permutation(len(excerpts))[:count]]


def _shuffled(items: Sequence[_Item], rng: np.random.Generator) -> list[_Item]:
    return [items[int(n)] for n in rng.permutation(len(items))]


# -- asking ----------------------------------------------------------------------------------------

_Rated = list[tuple[_Item, float | FailedReply]]


def _rated(
    asking: Asking, model: LanguageModel, kind: str, explanation: str, items: Sequence[_Item]
) -> tuple[_Rated, Attempts]:
    """Each text with its rating, and how many questions that took."""
    graded = PROMPT_LOGPROBS in model.can
    size = 1 if graded else TOGETHER
    groups = [items[n : n + size] for n in range(0, len(items), size)]
    questions = [
        _question(model, kind, explanation, [one.text for one in group], graded) for group in groups
    ]
    answers = asking.all(questions, kind, [0.5] * size)
    rated: _Rated = []
    for group, answer in zip(groups, answers, strict=True):
        if isinstance(answer, FailedReply):
            rated += [(one, answer) for one in group]
        else:
            rated += list(zip(group, answer, strict=False))
    return rated, Attempts.of(answers)


def _question(
    model: LanguageModel, kind: str, explanation: str, texts: Sequence[str], graded: bool
) -> Question:
    version = prompts.VERSIONS[kind]
    record = digest_of(list(texts))
    if graded:
        prompt = prompts.rate(kind, explanation, texts[0])

        def rate() -> list[float]:
            logs = model.score([prompt], prompts.YES_NO)[0]
            if np.isnan(logs).any() or not np.isfinite(logs).any():
                raise NoUsableReply("neither yes nor no is likely")
            yes, no = np.exp(logs - logs.max())
            return [float(yes / (yes + no))]

        return Question(
            model, version, explanation, record, prompt, rate, longest=1, more=("rated",)
        )
    messages = prompts.judge(kind, explanation, texts)

    def ask() -> list[float]:
        said = model.complete(
            messages, max_tokens=64 + 8 * len(texts), schema=prompts.answers_schema(len(texts))
        )
        return _read_answers(said.text, len(texts))

    text = "\n".join(one["content"] for one in messages)
    return Question(model, version, explanation, record, text, ask, longest=10 + 3 * len(texts))


def _read_answers(text: str, count: int) -> list[float]:
    found = read_json(text, "answers", list)
    if len(found) != count:
        raise NoUsableReply("another number of answers", f"{len(found)} for {count}")
    if wrong := [one for one in found if isinstance(one, bool) or one not in (0, 1)]:
        raise NoUsableReply("an answer that is neither 0 nor 1", f"{wrong[0]!r:.40}")
    return [float(one) for one in found]


def _judgement(
    kind: str, answers: tuple[_Rated, Attempts], record: UnitExcerpts | None, assumed: int
) -> Judgement:
    rated, attempts = answers
    known = [(one, value) for one, value in rated if not isinstance(value, FailedReply)]
    negative = [value for one, value in known if not one.holds]
    whole = scores.auc([value for one, value in known if one.holds], negative)
    parts = []
    for n, part in enumerate(record.intervals if record else ()):
        against = [v for one, v in known if not one.holds and one.interval in (-1, n)]
        mine = [v for one, v in known if one.holds and one.interval == n]
        peaks = [one.peak for one in part]
        parts.append(IntervalScore(min(peaks), max(peaks), scores.auc(mine, against)))
    return Judgement(kind, whole, tuple(parts), attempts, assumed)


def _intruders(
    asking: Asking,
    model: LanguageModel,
    explanation: str,
    record: UnitExcerpts,
    firing: Sequence[tuple[int, Excerpt]],
    quiet: Sequence[Excerpt],
    rng: np.random.Generator,
) -> Judgement:
    """One question for each quiet text that is used: four firing ones of one interval beside it, or as many as there are."""
    rounds: list[tuple[int, list[Excerpt], int]] = []
    for n in range(len(record.intervals)):
        mine = [one for interval, one in firing if interval == n][: TOGETHER - 1]
        if len(mine) < 2 or not quiet:
            continue
        place = int(rng.integers(len(mine) + 1))
        mine.insert(place, quiet[n % len(quiet)])
        rounds.append((n, mine, place))
    questions = [_intruder_question(model, explanation, texts) for _, texts, _ in rounds]
    answers = asking.all(questions, "intruder", 0)
    right: list[tuple[int, bool]] = [
        (n, answer == place)
        for (n, _, place), answer in zip(rounds, answers, strict=True)
        if not isinstance(answer, FailedReply)
    ]
    parts = []
    for n, part in enumerate(record.intervals):
        peaks = [one.peak for one in part]
        score = scores.accuracy([hit for interval, hit in right if interval == n])
        parts.append(IntervalScore(min(peaks), max(peaks), score))
    assumed = sum(texts[place].assumed for _, texts, place in rounds)
    whole = scores.accuracy([hit for _, hit in right])
    return Judgement("intruder", whole, tuple(parts), Attempts.of(answers), assumed)


def _intruder_question(
    model: LanguageModel, explanation: str, texts: Sequence[Excerpt]
) -> Question:
    shown = [prompts.shown(one) for one in texts]
    version, record = prompts.VERSIONS["intruder"], digest_of(shown)
    if PROMPT_LOGPROBS in model.can:
        return _most_unlike(model, explanation, shown)
    messages = prompts.intruder(explanation, shown)

    def ask() -> int:
        said = model.complete(messages, max_tokens=64, schema=prompts.intruder_schema(len(texts)))
        number: int = read_json(said.text, "intruder", int)
        if not 1 <= number <= len(texts):
            raise NoUsableReply("a text that there is not", str(number))
        return number - 1

    text = "\n".join(one["content"] for one in messages)
    return Question(model, version, explanation, record, text, ask, longest=10)


def _most_unlike(model: LanguageModel, explanation: str, shown: Sequence[str]) -> Question:
    """The text that is rated lowest, as in detection; one request for each."""
    asked = [prompts.rate("detection", explanation, text) for text in shown]

    def ask() -> int:
        ratings = []
        for prompt in asked:
            yes, no = model.score([prompt], prompts.YES_NO)[0]
            if not np.isfinite(yes) or not np.isfinite(no):
                raise NoUsableReply("neither yes nor no is likely")
            ratings.append(float(yes - no))
        return int(np.argmin(ratings))

    return Question(
        model,
        prompts.VERSIONS["intruder"],
        explanation,
        digest_of(list(shown)),
        "".join(asked),
        ask,
        requests=len(asked),
        longest=len(asked),
        more=("rated",),
    )
