"""One set of examples for what is answered: the types of the side bar fit them, and what does not is found."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.server_extension.answers import EXAMPLES, check
from tests.typescript import complaints, with_node

pytestmark = pytest.mark.processes

SOURCES = Path(__file__).parents[2] / "labextension" / "src"

TYPES = {
    "overview": "IOverview",
    "server_states": "IServer['state']",
    "job_states": "IJob['state']",
    "launch": "ILaunch",
    "launch_states": "ILaunch['state']",
    "offers": "IOffer[]",
    "launch_fields": "IField[]",
    "catalog": "ICatalog",
    "trouble": "ITrouble",
    "told": "ITold",
}
"""Examples with the types that the side bar takes them for."""


def program(examples: dict[str, list[Any]]) -> str:
    """The examples as TypeScript: a literal may have no field that its type does not know, and none may be missing."""
    names = sorted({re.findall(r"I\w+", kind)[0] for kind in TYPES.values()})
    lines = [f"import type {{ {', '.join(names)} }} from './answers';"]
    for name, kind in TYPES.items():
        for number, example in enumerate(examples[name]):
            lines.append(f"export const {name}_{number}: {kind} = {json.dumps(example)};")
    return "\n".join(lines)


def found(folder: Path, *examples: dict[str, list[Any]]) -> str:
    """What TypeScript says of examples: those of one set in one file."""
    (folder / "answers.ts").write_text((SOURCES / "answers.ts").read_text(encoding="utf-8"))
    for number, each in enumerate(examples):
        (folder / f"examples_{number}.ts").write_text(program(each))
    return complaints(folder)


@with_node
def test_the_types_of_the_side_bar_fit_the_examples(tmp_path: Path) -> None:
    assert found(tmp_path, EXAMPLES) == ""


def test_every_state_is_known_to_both() -> None:
    """And no other: a type that allows what is never answered is a branch that nobody takes."""
    text = (SOURCES / "answers.ts").read_text(encoding="utf-8")
    states = [re.findall(r"'(\w+)'", line) for line in re.findall(r"  state: (.*);", text)]
    assert states == [EXAMPLES[f"{what}_states"] for what in ("server", "launch", "job")]


WRONG: list[tuple[str, Any, str]] = [
    ("overview", lambda one: one["servers"][0].update(sate="idle"), "'\"sate\"' does not exist"),
    ("overview", lambda one: one["servers"][0]["ranks"][0].pop("device"), "'device' is missing"),
    ("overview", lambda one: one["servers"][0].update(state="asleep"), "'\"asleep\"'"),
    ("told", lambda one: one.update(current=None), "'null'"),
]
"""Examples with a change that makes them wrong, and what TypeScript says then."""


@with_node
def test_examples_of_another_form_do_not_fit_the_types(tmp_path: Path) -> None:
    programs = []
    for name, change, _ in WRONG:
        programs.append(copy.deepcopy(EXAMPLES))
        change(programs[-1][name][0])
    said = found(tmp_path, *programs)
    for number, (_, _, complaint) in enumerate(WRONG):
        assert re.search(rf"^examples_{number}\.ts.*{re.escape(complaint)}", said, re.M), said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda one: one.update(sate="idle"), r"answer has sate"),
        (lambda one: one.pop("pid"), r"answer has no pid"),
        (lambda one: one.update(pid="101"), r"answer\.pid is '101'"),
        (lambda one: one.update(state="asleep"), r"answer is in the state 'asleep'"),
        (
            lambda one: one["ranks"][1].update(layers=[None]),
            r"answer\.ranks\[1\]\.layers\[0\] is None",
        ),
    ],
)
def test_answers_of_another_form_are_not_like_the_examples(change: Any, says: str) -> None:
    servers = EXAMPLES["overview"][0]["servers"]
    wrong = copy.deepcopy(servers[0])
    check(wrong, servers)
    change(wrong)
    with pytest.raises(AssertionError, match=says):
        check(wrong, servers)


def test_nothing_in_the_side_bar_is_any() -> None:
    for source in SOURCES.glob("*.ts*"):
        assert not re.search(r"(:|\bas|<) ?any\b", source.read_text(encoding="utf-8")), source.name
