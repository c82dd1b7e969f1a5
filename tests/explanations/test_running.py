"""Explained, simulated, judged, compared: exact with functions as language models."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from garcon_jupyter.errors import BadRequest, Interrupted, UnknownName
from garcon_jupyter.explanations import (
    ExplanationStore,
    FunctionModel,
    as_json,
    explain,
    from_json,
    of_patterns,
    plan_explanations,
    prompts,
)
from garcon_jupyter.explanations.results import ScoredExplanation
from tests.explanations.conftest import (
    as_reply,
    known_levels,
    made_excerpts,
    made_record,
    perfect,
    rating,
    simulating,
)

QUIETLY: dict[str, Any] = {"show": False, "score": ["simulation"], "controls": 0}


def only(found: Any) -> ScoredExplanation:
    (one,) = found.scored
    return one  # type: ignore[no-any-return]


@pytest.mark.parametrize("calibration", ["none", "linear", "percentile"])
def test_a_perfect_simulator_has_1_in_all(calibration: str) -> None:
    record = made_record()
    one = only(explain([record], with_=perfect(record), calibration=calibration, **QUIETLY))
    assert one.explanation.text == "a thing"
    for name in ("correlation", "r_squared", "absolute_deviation"):
        assert one.scores[name].value == pytest.approx(1.0, abs=1e-12)
    assert one.scores["correlation"].n == sum(len(e.tokens) for e in record.test)
    assert one.simulation and not one.simulation.attempts.failed


def test_a_perfect_simulator_by_probabilities() -> None:
    record = made_record()
    known = known_levels(record)
    model = rating(lambda tokens: np.eye(11)[known[tuple(tokens)]])
    one = only(explain([record], with_=model, **QUIETLY))
    assert one.simulation and one.simulation.method == "all-at-once"
    assert one.scores["correlation"].value == pytest.approx(1.0, abs=1e-12)
    assert one.simulation.mass == pytest.approx(1.0)


@pytest.mark.parametrize("level", [0, 5])
def test_a_constant_simulator_is_undefined_and_neither_0_nor_nan(level: int) -> None:
    model = simulating(lambda tokens, explanation: as_reply(tokens, [level] * len(tokens)))
    one = only(explain([made_record()], with_=model, **QUIETLY))
    for name in ("correlation", "r_squared", "absolute_deviation"):
        score = one.scores[name]
        assert score.value is None and score.reason.startswith("undefined"), name
    assert "undefined" in str(one) and "nan" not in str(one)


def test_a_simulator_of_shuffled_levels_has_no_correlation() -> None:
    record = made_record(top=80, sample=63)
    known = known_levels(record)
    rng = np.random.default_rng(1)
    pool = rng.permutation([level for row in known.values() for level in row]).tolist()
    model = simulating(lambda tokens, explanation: as_reply(tokens, [pool.pop() for _ in tokens]))
    score = only(explain([record], with_=model, calibration="none", **QUIETLY)).scores[
        "correlation"
    ]
    assert score.n >= 480 and score.value is not None and abs(score.value) < 0.2


def test_of_malformed_replies_the_share_is_told_and_the_score_is_of_the_rest() -> None:
    record = made_record(top=40, sample=30)
    known = known_levels(record)
    asked = [one.tokens for one in record.test]
    assert len(asked) == 20
    bad = set(map(tuple, (tuple(map(prompts.written, t)) for t in asked[:20:10] + asked[3:7])))
    assert len(bad) == 6

    def answer(tokens: tuple[str, ...], explanation: str) -> str:
        return "Sorry." if tokens in bad else as_reply(tokens, known[tokens])

    model = simulating(answer)
    one = only(explain([record], with_=model, calibration="none", **QUIETLY))
    assert one.simulation
    attempts = one.simulation.attempts
    assert (attempts.n, attempts.failed, attempts.reasons) == (20, 6, {"not JSON": 6})
    assert attempts.failed / attempts.n == 0.3
    assert one.scores["correlation"].value == pytest.approx(1.0)
    assert one.scores["correlation"].n == 14 * 12
    assert "6 of 20 failed (not JSON ×6)" in str(one)
    # The wrong answer: zeros in their place.
    true = [v for e in record.test for v in e.values]
    zeros = [
        0.0 if tuple(map(prompts.written, e.tokens)) in bad else v
        for e in record.test
        for v in e.values
    ]
    assert np.corrcoef(true, zeros)[0, 1] < 0.95


def test_when_all_replies_fail_scores_are_undefined_with_all_reasons() -> None:
    model = simulating(lambda tokens, explanation: "no" if len(tokens[0]) % 2 else '{"levels": []}')
    one = only(explain([made_record()], with_=model, **QUIETLY))
    assert one.simulation and one.simulation.attempts.failed == one.simulation.attempts.n == 20
    assert set(one.simulation.attempts.reasons) <= {
        "not JSON",
        "another number of tokens in the reply",
    }
    assert one.scores["correlation"].value is None and one.scores["r_squared"].value is None


def test_calibration_is_fitted_on_its_own_part_alone() -> None:
    """A simulator that is right on the calibration's texts and silent on the others has no line to hide behind."""
    record = made_record()
    known = known_levels(record)
    tested = {tuple(map(prompts.written, e.tokens)) for e in record.test}
    model = simulating(
        lambda tokens, e: (
            as_reply(tokens, [0.5 * v for v in known[tokens]])
            if tokens not in tested
            else as_reply(tokens, known[tokens])
        )
    )
    one = only(explain([record], with_=model, **QUIETLY))
    assert one.simulation and one.simulation.calibration.slope == pytest.approx(4.0)
    assert one.scores["correlation"].value == pytest.approx(1.0)
    assert one.scores["r_squared"].value == pytest.approx(
        0.0, abs=1e-9
    )  # twice as much as there is


# -- controls --------------------------------------------------------------------------------------


def test_scores_stand_beside_those_of_other_units_explanations() -> None:
    records = [made_record(unit) for unit in range(3)]
    known = known_levels(*records)
    said = {f"unit {n}": known_levels(record) for n, record in enumerate(records)}

    def answer(tokens: tuple[str, ...], explanation: str) -> str:
        mine = said[explanation].get(tokens)
        return as_reply(tokens, mine or [len(t) % 3 for t in known[tokens] and tokens])

    texts = {(record.point, record.unit): f"unit {n}" for n, record in enumerate(records)}
    found = explain(
        records,
        judge_with=simulating(answer),
        said=texts,
        score=["simulation"],
        controls=2,
        show=False,
    )
    for n, one in enumerate(found):
        assert [c.unit for c in one.controls] == [(n + 1) % 3, (n + 2) % 3]
        assert one.scores["correlation"].value == pytest.approx(1.0)
        others = [c.scores["correlation"].value for c in one.controls]
        assert all(value is not None and abs(value) < 0.5 for value in others)
        standing = one.standing("correlation")
        assert (standing.rank, standing.of) == (1, 3)
        assert standing.ahead == pytest.approx(1 - sum(v for v in others if v) / 2)
        assert "rank 1 of 3" in str(one)


def test_a_model_that_minds_no_explanation_is_not_ahead_of_the_controls() -> None:
    """It knows the unit's values by itself: its score says nothing of what was said."""
    records = [made_record(unit) for unit in range(2)]
    texts = {(record.point, record.unit): f"unit {n}" for n, record in enumerate(records)}
    found = explain(
        records, judge_with=perfect(*records), said=texts, score=["simulation"], show=False
    )
    for one in found:
        assert one.scores["correlation"].value == pytest.approx(1.0)
        standing = one.standing("correlation")
        assert standing.ahead == pytest.approx(0.0, abs=1e-9) and standing.rank == 2


# -- judging ---------------------------------------------------------------------------------------


def judging(truth: Any, name: str = "judge") -> FunctionModel:
    """A model that answers each kind of question by a function of a text."""

    def answer(messages: Sequence[Any]) -> str:
        task, content = messages[0]["content"], messages[-1]["content"]
        if "Description: " not in content:
            return "a thing"
        texts = re.split(r"\n\nText \d+:\n", "\n\n" + content.split("\n\n", 1)[1])[1:]
        if "intruder" in task:
            return json.dumps({"intruder": 1 + int(np.argmin([truth(text) for text in texts]))})
        return json.dumps({"answers": [int(truth(text)) for text in texts]})

    return FunctionModel(answer, name=name)


def knows(record: Any) -> Any:
    """Whether a text, or what is marked in it, is of the unit: by its values alone."""
    firing, marked = set(), set()
    for one in (e for part in record.intervals for e in part):
        firing.add(prompts.shown(one))
        marked |= {
            t for t, v in zip(one.tokens, one.values, strict=True) if v > 0.1 * record.largest
        }

    def truth(text: str) -> bool:
        inside = re.findall(r"\[\[(.*?)\]\]", text)
        return all(word in marked for word in inside) if inside else text in firing

    return truth


KINDS = ["detection", "fuzzing", "intruder"]


def test_judges_that_know_have_1_in_all_intervals() -> None:
    record = made_record(top=16, sample=90)
    one = only(explain([record], with_=judging(knows(record)), score=KINDS, controls=0, show=False))
    assert list(one.judgements) == KINDS
    for kind, judged in one.judgements.items():
        assert judged.score.value == 1.0, kind
        assert len(judged.intervals) == len(record.intervals) > 2
        assert [part.score.value for part in judged.intervals] == [1.0] * len(judged.intervals)
        assert judged.intervals[0].high <= judged.intervals[-1].low


def test_a_judge_who_says_yes_to_all_has_a_half() -> None:
    record = made_record(top=16, sample=90)
    one = only(
        explain([record], with_=judging(lambda text: True), score=KINDS[:2], controls=0, show=False)
    )
    assert [judged.score.value for judged in one.judgements.values()] == [0.5, 0.5]


def test_an_explanation_of_the_strongest_alone_fails_in_the_lower_intervals() -> None:
    record = made_record(top=16, sample=90)
    strongest = {prompts.shown(one) for one in record.intervals[-1]}
    one = only(
        explain(
            [record],
            with_=judging(strongest.__contains__),
            score="detection",
            controls=0,
            show=False,
        )
    )
    parts = one.judgements["detection"].intervals
    assert parts[-1].score.value == 1.0 and parts[0].score.value == 0.5
    assert 0.5 < (one.scores["detection"].value or 0) < 0.8


def test_answers_of_another_form_are_counted_and_left_out() -> None:
    record = made_record(top=16, sample=90)
    right, turn = knows(record), iter(range(100))
    inner = judging(right)

    def answer(messages: Sequence[Any]) -> str:
        said = inner.complete(messages, max_tokens=1).text
        return said if said == "a thing" or next(turn) % 3 else '{"answers": [1, 2]}'

    one = only(
        explain([record], with_=FunctionModel(answer), score="detection", controls=0, show=False)
    )
    attempts = one.judgements["detection"].attempts
    assert 0 < attempts.failed < attempts.n
    assert one.scores["detection"].value == 1.0
    assert one.scores["detection"].n < 5 * attempts.n


def test_a_model_with_probabilities_rates_each_text() -> None:
    record = made_record(top=16, sample=90)
    right = knows(record)

    def rate(pieces: Sequence[str], candidates: Sequence[str]) -> Any:
        assert tuple(candidates) == (" yes", " no")
        text = pieces[0].split("\nText: ", 1)[1].split("\nAnswer, yes or no:")[0]
        return [[-0.1, -2.0]] if right(text) else [[-1.0, -1.1]]  # "yes" is likelier for all

    model = FunctionModel(lambda messages: "a thing", rate)
    one = only(explain([record], with_=model, score=KINDS, controls=0, show=False))
    assert [judged.score.value for judged in one.judgements.values()] == [1.0, 1.0, 1.0]


def test_heads_are_explained_and_judged_by_their_pairs() -> None:
    texts, patterns = [], []
    for n in range(20):
        pattern = np.full((5, 5), 0.01)
        pattern[3, 1] = 0.9
        texts.append([f"w{n}{k} " for k in range(5)])
        patterns.append(pattern)
    pairs = of_patterns("layers.0.attn.pattern", 2, texts, patterns)
    model = judging(
        lambda text: "{{" in text and bool(re.search(r"\{\{w\d+1 \}\}.*\[\[w\d+3 \]\]", text))
    )
    model = FunctionModel(
        lambda messages: model_answer(
            messages, judging(lambda text: bool(re.search(r"\{\{w\d+1 \}\}.*\[\[w\d+3 \]\]", text)))
        )
    )
    one = only(explain([pairs], with_=model, show=False))
    assert (
        one.simulation is None and one.scores["pairs"].value == 1.0 and one.scores["pairs"].n == 10
    )
    assert one.explanation.prompt == prompts.VERSIONS["explain-pairs"]


def model_answer(messages: Sequence[Any], judge: FunctionModel) -> str:
    return judge.complete(messages, max_tokens=1).text


# -- kept answers, costs, cancelling ---------------------------------------------------------------


def test_the_cost_is_told_before_and_is_what_is_asked(tmp_path: Path) -> None:
    records = [made_record(unit) for unit in range(2)]
    model = perfect(*records)
    turn = iter(range(9))
    inner = model._answer
    model._answer = lambda m: (
        f"thing {next(turn)}" if "\nTokens: " not in m[-1]["content"] else inner(m)
    )  # type: ignore[misc]
    plan = plan_explanations(records, with_=model, score=["simulation"], where=tmp_path)
    assert model.asked == 0 and plan.cost.kept == 0
    # Of each unit: one explanation, and 20 texts with its own and with one other's.
    assert plan.cost.requests == 2 * (1 + 2 * 20)
    assert plan.cost.prompt_tokens > 80 * 100 and "82 requests" in str(plan.cost)
    found = plan.run()
    assert model.asked == found.cost.requests == plan.cost.requests
    again = plan_explanations(records, with_=model, score=["simulation"], where=tmp_path)
    assert (again.cost.requests, again.cost.kept) == (0, 82)
    assert again.run().scored == found.scored and model.asked == 82


def test_answers_are_kept_by_model_prompt_explanation_and_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, other = made_record(), made_record(unit=1)
    key = (record.point, record.unit)

    def requests(model: FunctionModel, what: Any = record, text: str = "cats", **more: Any) -> int:
        plan = plan_explanations(
            [what],
            judge_with=model,
            said={key: text, (other.point, 1): text},
            where=tmp_path,
            **{"score": ["simulation"], "controls": 0, **more},
        )
        return plan.run().cost.requests

    known = perfect(record, other)
    assert requests(known) == 20
    assert requests(known) == 0
    assert requests(perfect(record, other, name="another model")) == 20
    assert requests(known, text="dogs") == 20
    assert requests(known, what=other) == 20
    assert requests(known, calibration="none") == 0  # what is done with answers asks nothing
    assert requests(known, top=9) == 20
    monkeypatch.setitem(prompts.VERSIONS, "json", "json-2")
    assert requests(known) == 20
    assert requests(known) == 0


def test_failed_replies_are_not_kept(tmp_path: Path) -> None:
    record = made_record()
    broken = simulating(lambda tokens, explanation: "?", name="m")
    first = only(explain([record], with_=broken, where=tmp_path, **QUIETLY))
    assert first.simulation and first.simulation.attempts.failed == 20
    again = only(explain([record], with_=perfect(record, name="m"), where=tmp_path, **QUIETLY))
    assert again.simulation and again.simulation.attempts.failed == 0
    assert [one.scores["correlation"].value for one in ExplanationStore(tmp_path).all()] == [1.0]


def test_what_is_cancelled_goes_on_where_it_was(tmp_path: Path) -> None:
    record = made_record()
    model, told = perfect(record), []
    with pytest.raises(Interrupted, match="what was answered is kept"):
        explain(
            [record],
            with_=model,
            where=tmp_path,
            cancelled=lambda: model.asked >= 7,
            progress=lambda *at: told.append(at),
            **QUIETLY,
        )
    assert model.asked == 7 and told == [
        (n, 21, "explaining" if n == 1 else "simulation") for n in range(1, 8)
    ]
    found = explain([record], with_=model, where=tmp_path, **QUIETLY)
    assert model.asked == 21 and (found.cost.requests, found.cost.kept) == (14, 7)
    assert only(found).scores["correlation"].value == pytest.approx(1.0)


def test_many_questions_at_a_time_come_to_the_same() -> None:
    record = made_record()
    one, many = perfect(record), perfect(record)
    many.at_once = 8
    first, second = (explain([record], with_=model, **QUIETLY) for model in (one, many))
    assert first.scored == second.scored and one.asked == many.asked == 21


# -- what cannot be explained, and what makes no sense ---------------------------------------------


def test_a_model_that_says_nothing_leaves_the_unit_unexplained_with_the_reason() -> None:
    found = explain([made_record()], with_=FunctionModel(lambda messages: ' "" '), **QUIETLY)
    assert not found.scored and found.unexplained[0].reason.startswith("empty explanation")
    long = explain([made_record()], with_=FunctionModel(lambda messages: "so " * 500), **QUIETLY)
    assert long.unexplained[0].reason.startswith("explanation too long")


def test_explanations_are_cleaned() -> None:
    assert prompts.cleaned('  "Words for\n weather." ') == "Words for weather"
    assert prompts.cleaned("The unit fires for: cats") == "cats"


def test_choices_that_make_no_sense_are_refused() -> None:
    record, model = made_record(), perfect(made_record())
    with pytest.raises(BadRequest, match="No language model"):
        explain([record])
    with pytest.raises(UnknownName, match="Did you mean detection"):
        explain([record], with_=model, score=["detecton"])
    with pytest.raises(BadRequest, match="no calibration 'cubic'"):
        explain([record], with_=model, calibration="cubic")
    with pytest.raises(BadRequest, match="Nothing is scored on 'train'"):
        explain([record], with_=model, part="train")
    with pytest.raises(BadRequest, match="answers no messages"):
        explain([record], with_=FunctionModel(None, lambda pieces, candidates: []))
    with pytest.raises(BadRequest, match=r"Nothing says what .* fires for"):
        explain([record], judge_with=model, show=False)


def test_results_are_the_same_again_from_json() -> None:
    record = made_record(top=16, sample=90)
    model = judging(knows(record))
    found = explain(
        [record, made_record(1)],
        with_=perfect(record, made_record(1)),
        show=False,
        score=["simulation"],
    )
    for one in (*found, *explain([record], with_=model, score=KINDS, show=False)):
        text = json.dumps(as_json(one), allow_nan=False)
        assert from_json(ScoredExplanation, json.loads(text)) == one


def test_no_text_that_explained_is_scored() -> None:
    record = made_record()
    seen: list[str] = []
    model = perfect(record)
    inner = model._answer
    model._answer = lambda m: (seen.append(m[-1]["content"]), inner(m))[1]  # type: ignore[misc,func-returns-value]
    explain([record], with_=model, **QUIETLY)
    explaining, simulated = seen[0], "".join(seen[1:])
    for one in record.train:
        assert one.tokens[0] in explaining and one.tokens[0] not in simulated
    assert not any(one.tokens[0] in explaining for one in made_excerpts(3, seed=99))
