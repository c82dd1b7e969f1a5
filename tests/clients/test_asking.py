"""The compiled client asks every operation of a running door, and is answered what the operations answer in Python."""

from __future__ import annotations

import base64
import json
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import garcon_jupyter as garcon
from clients import write
from garcon_jupyter.operations.failures import failure
from garcon_jupyter.operations.operation import Door
from garcon_jupyter.operations.table import OPERATIONS
from tests.clients.doors import OpenDoor, open_door
from tests.typescript import COMPILER, with_node

pytestmark = [pytest.mark.processes, with_node]

IDS = [0, 40, 41, 42, 99, 7]
OTHER = [0, 12, 200, 13, 13, 5]
EDIT = {"point": "layers.1.mlp.post_activation", "units": [7], "positions": [-1]}
PAIR = {"clean": IDS, "corrupted": OTHER, "answers": [12, 200]}
BASE64 = {"form": "base64"}

ASKED: list[tuple[str, dict[str, Any]]] = [
    ("describe", {}),
    ("points", {"pattern": "layers.*.attn.z"}),
    ("status", {}),
    ("parameter", {"name": "layers.1.mlp.down_proj", "rows": [0, 3], **BASE64}),
    ("tokenize", {"texts": ["ab", "c"]}),
    ("detokenize", {"ids": [IDS]}),
    ("chat", {"messages": [{"role": "user", "content": "a"}]}),
    (
        "forward",
        {
            "prompts": [IDS, OTHER],
            "reads": [
                {"point": "layers.*.resid_post"},
                {"point": "layers.2.mlp.post_activation", "reduce": "strongest", "k": 3},
            ],
            "logits": "last",
            "likely": 3,
            **BASE64,
        },
    ),
    ("forward", {"prompts": IDS, "edits": [EDIT], "logits": "all", **BASE64}),
    ("attention", {"prompt": IDS, "layers": [1], "heads": [0, 2], **BASE64}),
    ("generate", {"prompts": IDS, "max_new_tokens": 4, "temperature": 1, "seed": 3}),
    ("backward", {"prompt": IDS, "targets": [12], "points": ["layers.2.resid_post"], **BASE64}),
    ("lens", {"prompt": IDS, "answer": 12, **BASE64}),
    ("direct_logit_attribution", {"prompt": IDS, "answers": [12, 200], **BASE64}),
    ("effects", {"prompt": IDS, "targets": [12], "distractors": [200], "strongest": 5, **BASE64}),
    ("head_scores", {"rows": 1, **BASE64}),
    ("patch", {**PAIR, "points": ["layers.*.resid_pre"], **BASE64}),
    ("attribute", {**PAIR, **BASE64}),
    ("atlases", {}),
    ("unit", {"point": "layers.0.mlp.post_activation", "unit": 0}),
    ("search", {"token": "a", "at_least": 0.1}),
    ("explanations", {"words": "a"}),
    ("jobs", {}),
    ("steer", {"job": "none of this name", "what": "cancel"}),
    ("forward", {"prompts": IDS, "reads": [{"point": "layers.1.attn.zz"}]}),
    ("forward", {"prompts": IDS, "edits": [{"point": "layers.1.attn.z", "kind": "oblate"}]}),
]
STREAMED = ("generate", {"prompts": IDS, "max_new_tokens": 4})


@pytest.fixture(scope="module")
def door(llama_server: garcon.Server) -> Any:
    """`garcon serve` of the small Llama."""
    with open_door(llama_server.name) as opened:
        yield opened


@pytest.fixture(scope="module")
def said(door: OpenDoor, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the compiled client was answered."""
    if not COMPILER.exists():
        pytest.skip("There is no TypeScript: `make javascript` brings it.")
    build = tmp_path_factory.mktemp("client")
    write.compiled(build, COMPILER)
    (build / "package.json").write_text('{"type": "module"}')
    asked = {"address": door.address, "token": door.token, "asked": ASKED, "streamed": STREAMED}
    command = ["node", str(Path(__file__).with_name("ask.mjs")), str(build / "client.js")]
    done = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def python(llama_server: garcon.Server) -> Any:
    """A door in Python, to a session of its own."""
    with closing(garcon.connect(llama_server.name)) as model:
        yield Door(model)


def answered(python: Door, operation: str, request: dict[str, Any]) -> dict[str, Any]:
    """What an operation answers in Python, as it travels."""
    try:
        found = OPERATIONS[operation](python, request)
    except Exception as error:  # noqa: BLE001 - compared with what the client was told
        status, told = failure(error)
        return {"status": status, "failure": json.loads(told.model_dump_json())}
    return {"answer": json.loads(found.model_dump_json())}


def test_every_operation_is_asked() -> None:
    assert {operation for operation, _ in ASKED} == set(OPERATIONS)


@pytest.mark.parametrize("number", range(len(ASKED)), ids=lambda n: f"{n}-{ASKED[n][0]}")
def test_the_client_is_answered_what_python_is(
    said: dict[str, Any], python: Door, number: int
) -> None:
    operation, request = ASKED[number]
    wanted, found = answered(python, operation, request), said["answers"][number]
    if operation == "status":  # memory and clients differ from one moment to the next
        assert set(found["answer"]) == set(wanted["answer"])
        assert any("http" in str(client) for client in found["answer"]["clients"])
        return
    assert found == wanted


def test_activations_are_the_models_bit_for_bit(said: dict[str, Any], python: Door) -> None:
    (number,) = [n for n, (_, request) in enumerate(ASKED) if len(request.get("reads", [])) == 2]
    found = said["answers"][number]["answer"]["activations"][:-1]
    look = python.model.look([IDS, OTHER])
    assert len(found) == 4
    for each in found:
        numbers = np.frombuffer(base64.b64decode(each["values"]["base64"]), "<f4")
        wanted = look[each["point"]].numpy()
        assert each["values"]["shape"] == list(wanted.shape)
        assert np.array_equal(numbers.view("<u4"), wanted.ravel().view("<u4"))


def test_refusals_have_their_words(said: dict[str, Any]) -> None:
    missing, wrong = said["answers"][-2:]
    assert missing["status"] == 404 and "layers.1.attn.z" in missing["failure"]["nearest"]
    assert wrong["status"] == 422 and "edits.0.kind" in wrong["failure"]["problem"]


def test_tokens_are_told_as_they_come(said: dict[str, Any]) -> None:
    told, answer = said["streamed"]["told"], said["streamed"]["answer"]
    assert [step["tokens"][0] for step in told] == answer["new"][0]["ids"] and len(told) == 4


def test_an_abort_ends_it(said: dict[str, Any]) -> None:
    assert said["ended"] == "AbortError"
