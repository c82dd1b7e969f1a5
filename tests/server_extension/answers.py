"""Examples of what Jupyter's server and the notebook's kernel answer to the side bar, and what it is to be like them.

The examples stand in ``answers.json``. TypeScript's types (``labextension/src/answers.ts``) are held against them, and so
is every answer that a test gets: what one side calls otherwise than the other fails on one of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EXAMPLES: dict[str, list[Any]] = json.loads(
    Path(__file__).with_name("answers.json").read_text(encoding="utf-8")
)

STATES = {
    state for name in ("server_states", "job_states", "launch_states") for state in EXAMPLES[name]
}

_KINDS = [(bool, "boolean"), (int, "number"), (float, "number"), (str, "string")]


def which(method: str, path: str, status: int) -> str:
    """The examples that an answer is to be like."""
    if status >= 400:
        return "trouble"
    parts = path.split("?")[0].split("/")[1:]
    return {
        ("GET", "servers", ""): "overview",
        ("GET", "servers", "points"): "catalog",
        ("POST", "servers", "keep-alive"): "kept_alive",
        ("POST", "servers", "cancel"): "cancelled",
        ("POST", "launches", ""): "launch",
        ("GET", "models", ""): "offers",
        ("GET", "launch-fields", ""): "launch_fields",
    }.get((method, parts[0], parts[2] if len(parts) > 2 else ""), "nothing")


def check(answer: Any, examples: list[Any], where: str = "answer") -> None:
    """Whether an answer is like the examples: fields that each of them has it must have, fields that none has it may not
    have, and every value is of a kind that an example has at its place.

    Raises:
        AssertionError: it is not; says where.
    """
    alike = [each for each in examples if _kind(each) == _kind(answer)]
    assert alike, f"{where} is {answer!r}; no example has such a value there"
    if isinstance(answer, dict):
        always = set.intersection(*(set(each) for each in alike))
        ever = set.union(*(set(each) for each in alike))
        assert always <= set(answer), f"{where} has no {', '.join(sorted(always - set(answer)))}"
        assert set(answer) <= ever, f"{where} has {', '.join(sorted(set(answer) - ever))}"
        for name, value in answer.items():
            check(value, [each[name] for each in alike if name in each], f"{where}.{name}")
            assert name != "state" or value in STATES, f"{where} is in the state {value!r}"
    elif isinstance(answer, list):
        for place, value in enumerate(answer):
            check(value, [one for each in alike for one in each], f"{where}[{place}]")


def _kind(value: Any) -> str:
    return next((name for kind, name in _KINDS if isinstance(value, kind)), type(value).__name__)
