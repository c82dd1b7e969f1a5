"""The tools are the table of operations, bounded, counted and refused where they should be."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import jsonschema
import numpy as np
import pytest

from garcon_jupyter.agents import agent_tools
from garcon_jupyter.agents.agent_session import AgentSession
from garcon_jupyter.agents.session_tools import SESSION_TOOLS
from garcon_jupyter.operations.table import OPERATIONS
from tests.agents.conftest import ask, asked, refused
from tests.oracle import Plain

IDS = [5, 9, 2, 17, 30, 8]


def test_there_is_a_tool_of_each_operation_and_none_else() -> None:
    assert agent_tools.names() == [*OPERATIONS, *SESSION_TOOLS]
    assert not set(OPERATIONS) & set(SESSION_TOOLS)


@pytest.mark.parametrize("name", agent_tools.names())
def test_a_tool_says_what_it_does_and_what_it_takes(name: str) -> None:
    schema, words = agent_tools.schema(name), agent_tools.description(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "form" not in schema["properties"] and schema["additionalProperties"] is False
    if name in OPERATIONS:
        operation = OPERATIONS[name]
        assert operation.what in words and operation.cost in words
        assert f"Permission: {operation.permission}" in words
        assert ("estimate" in schema["properties"]) is not operation.quick
    assert len(words) < 1024


def test_an_answer_is_that_of_the_model(session: AgentSession, plain: Plain) -> None:
    reads = [{"point": "layers.1.mlp.post_activation"}]
    told = ask(session, "forward", prompts=IDS, reads=reads)
    kept = session.shelf[told["answer"]["activations"][0]["values"]["kept_as"]]
    seen: list[Any] = []
    hook = plain.model.model.layers[1].mlp.down_proj.register_forward_pre_hook(
        lambda module, given: seen.append(given[0])
    )
    import torch

    with torch.no_grad():
        plain.model(torch.tensor([IDS]))
    hook.remove()
    assert np.allclose(kept.values, seen[0].numpy(), atol=1e-5)
    told = ask(session, "read_array", name=kept.name, places=[0, 3, [0, 5]])
    assert np.allclose(told["values"], seen[0][0, 3, :5].numpy(), rtol=1e-4, atol=1e-5)


def test_answers_are_small_however_large_the_arrays(session: AgentSession) -> None:
    ids = [[n % 50 + 1 for n in range(120)]] * 8
    found = ask(
        session, "forward", prompts=ids, reads=[{"point": "layers.*.resid_post"}], logits="all"
    )
    assert len(json.dumps(found)) < 40_000
    assert "120 in all" in json.dumps(found)  # the tokens that are not told


def test_looks_are_counted_and_what_takes_no_pass_is_none(session: AgentSession) -> None:
    ask(session, "tokenize", texts=["a"])
    for count in (1, 2):
        assert ask(session, "lens", prompt=IDS)["looks"]["so_far"] == count
    ask(session, "forward", prompts=IDS, estimate=True)
    assert ask(session, "budget")["looks"] == 2


# -- what is refused -----------------------------------------------------------------------------


def test_reading_is_permitted_and_edits_are_not(opened: Callable[..., AgentSession]) -> None:
    session = opened()
    ask(session, "forward", prompts=IDS)
    edits = [{"point": "layers.0.attn.z"}]
    for name, request in (
        ("forward", {"prompts": IDS, "edits": edits}),
        ("generate", {"prompts": IDS, "edits": edits}),
        ("steer", {"job": "x", "what": "cancel"}),
    ):
        told = refused(session, name, **request)
        assert told["kind"] == "NotPermitted" and "--allow" in told["remedy"]
    assert refused(opened("edit"), "steer", job="x", what="cancel")["kind"] == "NotPermitted"
    assert ask(opened("edit"), "forward", prompts=IDS, edits=edits)


def test_what_is_over_the_budget_is_refused_before_it_is_run(
    opened: Callable[..., AgentSession],
) -> None:
    session = opened(tokens=20)
    ask(session, "forward", prompts=IDS)
    ask(session, "forward", prompts=IDS)
    assert ask(session, "budget")["left"]["tokens"] == 20 - 2 * len(IDS)
    told = refused(session, "forward", prompts=[*IDS, *IDS])
    assert told["problem"].startswith(
        "This takes about 12 tokens, and 8 are left of a budget of 20"
    )
    assert "--tokens" in told["remedy"]
    assert ask(session, "budget")["looks"] == 2
    session = opened(bytes=1000)
    assert "bytes" in refused(session, "forward", prompts=IDS, logits="all")["problem"]


@pytest.mark.parametrize(
    ("name", "request_", "nearest"),
    [
        ("forwrd", {}, "forward"),
        ("forward", {"prompts": IDS, "edts": []}, "edits"),
        (
            "forward",
            {"prompts": IDS, "reads": [{"point": "layers.0.mlp.post_activaton"}]},
            "layers.0.mlp.post_activation",
        ),
        ("read_array", {"name": "aray 1"}, None),
        ("task", {"name": "task 9"}, None),
    ],
)
def test_errors_say_what_to_do_and_what_is_like_it(
    session: AgentSession, name: str, request_: dict[str, Any], nearest: str | None
) -> None:
    told = refused(session, name, **request_)
    assert told["remedy"]
    assert nearest is None or nearest in told["nearest"]


@pytest.mark.parametrize(
    "value", ["__import__('os').system('true')", "lambda x: x", "{{7*7}}", "../../etc/passwd"]
)
def test_no_code_is_run_and_no_file_is_read(session: AgentSession, value: str) -> None:
    """What looks like code is a name that there is not, wherever it stands."""
    for name, request in (
        ("forward", {"prompts": IDS, "reads": [{"point": value}]}),
        ("parameter", {"name": value}),
        ("read_array", {"name": value}),
        ("effects", {"prompt": IDS, "of": [value]}),
        ("unit", {"point": value, "unit": 0}),
    ):
        assert refused(session, name, **request)["kind"] != "ServerError"


def test_progress_is_told_in_passes_and_never_goes_back(session: AgentSession) -> None:
    told: list[dict[str, Any]] = []
    wanted = agent_tools.read("generate", {"prompts": IDS, "max_new_tokens": 4})
    agent_tools.submit(session, wanted, threading.Event(), told.append).result()
    passes = [each["progress"] for each in told]
    assert passes == sorted(set(passes)) and passes[0] == 0 and passes[-1] == told[0]["total"]


def test_what_is_called_off_before_its_turn_is_never_run(session: AgentSession) -> None:
    gone = threading.Event()
    gone.set()
    wanted = agent_tools.read("lens", {"prompt": IDS})
    found = agent_tools.submit(session, wanted, gone, lambda what: None).result()
    assert found.failed and session.spending.looks == 0
    assert not asked(session, "budget").failed
