"""What is said to be the cost is the cost."""

from __future__ import annotations

from typing import Any

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.agents.agent_session import AgentSession
from garcon_jupyter.agents.controls import CONTROLS
from garcon_jupyter.agents.estimates import CONTROLLED, ESTIMATES, estimate
from garcon_jupyter.operations.operation import Door
from garcon_jupyter.operations.table import OPERATIONS
from tests.agents.conftest import ask

IDS = [5, 9, 2, 17, 30, 8]
OTHER = [5, 9, 3, 17, 30, 8]


def test_every_operation_has_an_estimate() -> None:
    assert set(ESTIMATES) == set(OPERATIONS)
    assert set(CONTROLLED) == set(CONTROLS)


@pytest.mark.parametrize(
    ("name", "request_", "passes", "tokens"),
    [
        ("forward", {"prompts": [IDS, IDS]}, 2, 12),
        (
            "forward",
            {
                "prompts": IDS,
                "edits": [{"point": "layers.0.attn.z", "kind": "patch", "prompts": OTHER}],
            },
            2,
            12,
        ),
        ("lens", {"prompt": IDS}, 1, 6),
        ("generate", {"prompts": IDS, "max_new_tokens": 4}, 5, 10),
        ("backward", {"prompt": IDS, "targets": [3], "points": ["layers.0.attn.z"]}, 3, 18),
        ("patch", {"clean": IDS, "corrupted": OTHER, "points": ["layers.*.resid_pre"]}, None, None),
        ("head_scores", {"rows": 4}, 8, 8 * 48),
    ],
)
def test_passes_and_tokens(
    rmodel: garcon.RemoteModel,
    name: str,
    request_: dict[str, Any],
    passes: int | None,
    tokens: int | None,
) -> None:
    asked = OPERATIONS[name].request(**request_)
    told = estimate(Door(rmodel), name, asked, False)
    if passes is None:  # two runs, and one of each layer and position
        passes = 2 + rmodel.catalog.n_layers * 6
        tokens = passes * 6
    assert (told.passes, told.tokens) == (passes, tokens)


@pytest.mark.parametrize(
    "read",
    [
        {"point": "layers.*.attn.z"},
        {"point": "layers.1.mlp.post_activation", "positions": [0, 2], "units": [1, 2, 3]},
        {"point": "layers.0.attn.pattern", "units": [1]},
        {"point": "layers.*.resid_post", "reduce": "mean"},
    ],
)
def test_bytes_are_those_of_the_answer(session: AgentSession, read: dict[str, Any]) -> None:
    request = {"prompts": [IDS, OTHER], "reads": [read], "logits": "last"}
    told = ask(session, "forward", **request, estimate=True)["estimate"]
    before = session.shelf.bytes
    ask(session, "forward", **request)
    assert told["bytes"] == session.shelf.bytes - before


def test_a_control_is_in_the_estimate(session: AgentSession) -> None:
    request = {"clean": IDS, "corrupted": OTHER, "points": ["layers.*.resid_pre"], "estimate": True}
    alone = ask(session, "patch", **request, control=False)["estimate"]
    both = ask(session, "patch", **request)["estimate"]
    assert both["passes"] == 2 * alone["passes"]
