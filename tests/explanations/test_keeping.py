"""What is kept: whole after a kill, damage seen, found by unit and by words."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from garcon_jupyter.errors import BadData
from garcon_jupyter.explanations import Explanation, ExplanationStore, ScoredExplanation, explain
from garcon_jupyter.explanations.checked_lines import CheckedLines
from tests.explanations.conftest import made_record, perfect

ROOT = Path(__file__).parents[2]

POINT = "layers.0.mlp.post_activation"


def said(unit: int, text: str, **more: Any) -> ScoredExplanation:
    return ScoredExplanation(Explanation(POINT, unit, text, "a model", "explain-1"), **more)


def test_values_are_read_as_they_were_added(tmp_path: Path) -> None:
    file = CheckedLines(tmp_path / "deep" / "values.jsonl")
    assert file.read() == ([], 0)
    file.add([{"b": [1.5, None], "a": "⏎"}])
    file.add([2, "three"])
    assert CheckedLines(file.path).read() == ([{"a": "⏎", "b": [1.5, None]}, 2, "three"], 0)


def test_a_line_that_was_cut_short_is_left_out_and_nothing_after_it_is_lost(tmp_path: Path) -> None:
    file = CheckedLines(tmp_path / "values.jsonl")
    file.add(["one", "two"])
    whole = file.path.read_bytes()
    for cut in range(1, 20):  # a process that was killed anywhere in its last line
        file.path.write_bytes(whole[:-cut])
        rows, damaged = file.read()
        assert (rows, damaged) in ((["one"], 1), (["one", "two"], 0))
        file.add(["three"])
        assert file.read()[0] == [*rows, "three"]


def test_a_value_that_was_changed_is_seen_by_its_checksum(tmp_path: Path) -> None:
    file = CheckedLines(tmp_path / "values.jsonl")
    file.add([{"level": 10}, {"level": 3}])
    text = file.path.read_text()
    file.path.write_text(text.replace('"level":10', '"level":70'))
    assert json.loads(file.path.read_text().splitlines()[0])["value"] == {"level": 70}
    assert file.read() == ([{"level": 3}], 1)


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadData, match="cannot be written"):
        CheckedLines(tmp_path / "file" / "values.jsonl").add([1])


def test_explanations_are_found_by_unit_and_the_last_of_a_kind_counts(tmp_path: Path) -> None:
    store = ExplanationStore(tmp_path)
    store.add([said(1, "cities"), said(2, "days"), said(1, "capitals")])
    store.add([replace(said(1, "cities"), atlas="x")])
    again = ExplanationStore(tmp_path)
    assert len(again) == 3 and again.damaged == 0
    assert [one.explanation.text for one in again.of(POINT, 1)] == ["cities", "capitals"]
    assert again.of(POINT, 1)[0].atlas == "x" and again.of(POINT, 9) == []
    assert again.all() == store.all()


def test_words_are_looked_for_in_any_order_and_a_phrase_comes_first(tmp_path: Path) -> None:
    store = ExplanationStore(tmp_path)
    texts = ["the days of a week", "Names of capital cities", "weekday names, as of days", "a city"]
    store.add([said(n, text) for n, text in enumerate(texts)])

    def found(words: str) -> list[int]:
        return [one.explanation.unit for one in store.search(words)]

    assert found("names") == [1, 2] and found("NAMES capital") == [1]
    assert found("of days") == [2, 0]
    assert found("cit") == [1, 3] and found("x") == found("") == found("  ") == []


def test_explanations_of_another_atlas_are_not_shown(tmp_path: Path) -> None:
    store = ExplanationStore(tmp_path, "old")
    store.add([said(1, "cities", atlas="old")])
    anew = ExplanationStore(tmp_path, "new")
    assert len(anew) == 0 and anew.stale == 1
    assert len(ExplanationStore(tmp_path)) == 1


KILLED = """
import os, sys
from tests.explanations.conftest import made_record, perfect
from garcon_jupyter.explanations import explain

record = made_record()
model = perfect(record)
inner = model._answer

def answer(messages):
    if model.asked == 9:
        os.kill(os.getpid(), 9)
    return inner(messages)

model._answer = answer
explain([record], with_=model, score=["simulation"], where=sys.argv[1], show=False)
"""


@pytest.mark.processes
def test_a_run_that_was_killed_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == -signal.SIGKILL, done.stderr
    record = made_record()
    model = perfect(record)
    found = explain([record], with_=model, score=["simulation"], where=tmp_path, show=False)
    assert model.asked == found.cost.requests == 21 - 8 and found.cost.kept == 8
    assert found.scored[0].scores["correlation"].value == pytest.approx(1.0)


def test_answers_that_are_half_written_are_asked_for_again(tmp_path: Path) -> None:
    record = made_record()
    model = perfect(record)
    explain([record], with_=model, score=["simulation"], where=tmp_path, show=False)
    answers = tmp_path / "answers.jsonl"
    lines = answers.read_bytes().splitlines(keepends=True)
    answers.write_bytes(b"".join(lines[:9]) + lines[9][:30])
    again = perfect(record)
    found = explain([record], with_=again, score=["simulation"], where=tmp_path, show=False)
    assert again.asked == 21 - 9 and found.cost.kept == 9
    assert found.scored[0].scores["correlation"].value == pytest.approx(1.0)
    assert ExplanationStore(tmp_path).answers().damaged == 1
