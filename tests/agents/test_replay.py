"""The log as a notebook: its cells, executed, give the numbers that were told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from pydantic import BaseModel

import garcon_jupyter as garcon
from garcon_backend.in_process import ModelHere
from garcon_jupyter.agents.agent_session import AgentSession
from garcon_jupyter.experiments.result import ExperimentResult
from garcon_jupyter.operations.plain_data import Array
from tests.agents.conftest import ask, refused

TEXT, OTHER = "the cat sat on the mat", "the dog sat on the mat"
IDS = [5, 9, 2, 17, 30, 8]
CHANGED = [5, 9, 3, 17, 30, 8]

LOOKS: list[tuple[str, dict[str, Any]]] = [
    ("tokenize", {"texts": [TEXT]}),
    ("forward", {"prompts": TEXT, "reads": [{"point": "layers.*.attn.z"}], "likely": 2}),
    (
        "forward",
        {"prompts": IDS, "edits": [{"point": "layers.0.attn.z", "units": [1]}], "logits": "last"},
    ),
    ("attention", {"prompt": TEXT, "layers": [0, 1]}),
    ("lens", {"prompt": TEXT, "choices": 3}),
    ("direct_logit_attribution", {"prompt": TEXT, "answers": [11, 12], "by": "head"}),
    (
        "effects",
        {"prompt": TEXT, "of": ["heads"], "targets": [11], "distractors": [12], "strongest": 4},
    ),
    (
        "effects",
        {
            "prompt": IDS,
            "of": ["neurons"],
            "targets": [11, 13],
            "distractors": [12],
            "strongest": 4,
        },
    ),
    ("head_scores", {"rows": 2, "seed": 3}),
    (
        "patch",
        {"clean": IDS, "corrupted": CHANGED, "points": ["layers.*.resid_pre"], "answers": [11, 12]},
    ),
    ("attribute", {"clean": IDS, "corrupted": CHANGED, "answers": [11, 12]}),
    ("backward", {"prompt": IDS, "targets": [11], "points": ["layers.1.mlp.post_activation"]}),
    ("parameter", {"name": "layers.0.mlp.down_proj", "rows": [0, 2]}),
    ("generate", {"prompts": TEXT, "max_new_tokens": 3}),
]


def arrays(told: Any) -> list[str]:
    """The names of all arrays of an answer, in order."""
    if isinstance(told, dict):
        here = [told["kept_as"]] if "kept_as" in told else []
        return here + [name for value in told.values() for name in arrays(value)]
    return [name for value in told for name in arrays(value)] if isinstance(told, list) else []


def numbers(found: Any) -> list[np.ndarray]:
    """The arrays of what a cell found: an answer of the table, or a result."""
    if isinstance(found, Array):
        return [found.numpy()]
    if isinstance(found, ExperimentResult):
        return [np.asarray(found.values), *(np.asarray(each) for each in found.more.values())]
    if isinstance(found, dict):
        return [each for part in found.values() for each in numbers(part)]
    if isinstance(found, BaseModel):
        return [each for name in type(found).model_fields for each in numbers(getattr(found, name))]
    if isinstance(found, list | tuple):
        return [each for part in found for each in numbers(part)]
    return []


@pytest.fixture
def replayed(
    session: AgentSession, llama_here: ModelHere, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What the names of the notebook's cells are after all were executed, in order."""
    for name, request in LOOKS:
        ask(session, name, **request)
    document = nbformat.reads(session.notebook(), as_version=4)
    nbformat.validate(document)
    monkeypatch.setattr(garcon, "launch_and_connect", lambda path, name: garcon.connect(llama_here))
    here: dict[str, Any] = {}
    for cell in document.cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, cell.id, "exec"), here)
    return here


def test_cells_give_the_same_numbers(session: AgentSession, replayed: dict[str, Any]) -> None:
    assert len(session.looks) == len(LOOKS)
    compared = 0
    for index, look in enumerate(session.looks, 1):
        found = numbers(replayed[f"found_{index}"])
        kept = [session.shelf[name].values for name in arrays(look.told["answer"])]
        assert len(found) == len(kept), look.operation
        for mine, theirs in zip(found, kept, strict=True):
            assert np.allclose(mine, theirs, rtol=1e-5, atol=1e-6, equal_nan=True), look.operation
            compared += 1
        if look.seed is not None:
            held = replayed[f"control_{index}"]
            assert held["largest"] == pytest.approx(look.told["control"]["largest"], rel=1e-3)
    assert compared > 30
    words = session.looks[-1].told["answer"]
    assert (
        replayed[f"found_{len(LOOKS)}"][0].tolist()
        == words["prompts"][0]["ids"] + words["new"][0]["ids"]
    )


def test_experiments_are_cells_of_their_own(session: AgentSession) -> None:
    """Plain calls, and no table, wherever a request is one."""
    ask(session, "lens", prompt=TEXT, choices=3)
    ask(session, "generate", prompts=TEXT, max_new_tokens=2)
    cells = nbformat.reads(session.notebook(), as_version=4).cells
    assert "experiments.read_lens(rmodel, 'the cat sat on the mat', choices=3" in cells[3].source
    assert cells[5].source.startswith("found_2 = rmodel.generate(rmodel.encode(")


def test_what_is_quoted_stays_quoted(session: AgentSession) -> None:
    """A prompt that looks like the end of a string is a string in the cell."""
    prompt = "'); import os; os.system('true') #\n\"\"\""
    ask(session, "lens", prompt=prompt)
    import ast

    cell = nbformat.reads(session.notebook(), as_version=4).cells[-1]
    tree = ast.parse(cell.source)
    assert len(tree.body) == 2 and not any(isinstance(each, ast.Import) for each in ast.walk(tree))
    assert prompt in [each.value for each in ast.walk(tree) if isinstance(each, ast.Constant)]


def test_a_file_has_the_log_at_all_times(
    opened: Callable[..., AgentSession], tmp_path: Path
) -> None:
    file = tmp_path / "log.ipynb"
    session = opened(notebook=file)
    ask(session, "lens", prompt=IDS)
    refused(session, "lens", prompt=IDS, choices=-1)
    assert json.loads(file.read_text(encoding="utf-8")) == json.loads(session.notebook())
    assert [each.name for each in tmp_path.iterdir()] == ["log.ipynb"]
