"""What comes out of the door is what the model has."""

from __future__ import annotations

import base64
import gc
import os
import threading
import time

import numpy as np
import psutil
import pytest
import torch

import garcon_jupyter as garcon
from garcon_backend.in_process import ModelHere
from garcon_jupyter.http_door.desk import OperationDesk
from garcon_jupyter.operations.limits import RequestLimits
from garcon_jupyter.operations.operation import Door
from garcon_jupyter.operations.table import OPERATIONS
from tests import oracle
from tests.http_door.conftest import OpenDoor, opened

IDS = oracle.PROMPT


def test_health_and_form_need_no_token(door: OpenDoor) -> None:
    assert door.ask("/health", method="GET", token=False).told == {"status": "ok"}
    told = door.ask("/openapi.json", method="GET", token=False).told
    assert {f"/v1/{name}" for name in OPERATIONS} == set(told["paths"])


def test_describe_by_get(door: OpenDoor) -> None:
    assert door.ask("describe", method="GET").told["model"]["layers"] == 4


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("tokenize", {"texts": ["hello"]}),
        ("points", {"pattern": "layers.*.attn.z"}),
        ("forward", {"prompts": IDS, "reads": [{"point": "layers.*.resid_post", "reduce": "norm"}], "likely": 3}),
        ("lens", {"prompt": IDS[0]}),
        ("effects", {"prompt": IDS[0], "targets": [5], "strongest": 3}),
    ],
)  # fmt: skip
def test_an_answer_is_that_of_the_operation(
    door: OpenDoor, rmodel: garcon.RemoteModel, name: str, asked: dict[str, object]
) -> None:
    wanted = OPERATIONS[name](Door(rmodel), asked).model_dump_json()
    assert door.ask(name, asked).body.decode() == wanted


def test_base64_to_the_bit(door: OpenDoor, rmodel: garcon.RemoteModel) -> None:
    asked = {"prompts": IDS, "reads": [{"point": "layers.1.resid_post"}], "form": "base64"}
    (found,) = door.ask("forward", asked).told["activations"]
    numbers = np.frombuffer(base64.b64decode(found["values"]["base64"]), "<f4")
    wanted = rmodel.look(IDS)["layers.1.resid_post"]
    assert torch.equal(torch.from_numpy(numbers.copy()).reshape(wanted.shape), wanted)


@pytest.mark.parametrize(
    ("name", "asked", "status"),
    [
        ("nothing", {}, 404),
        ("forward", {}, 422),
        ("forward", {"prompts": "a", "reads": [{"point": "layers.0.mlp.ot"}]}, 404),
        ("forward", {"prompts": [[1] * 3000]}, 422),
        ("forward", b"{", 422),
        ("forward", b"\xff\xfe", 422),
        ("forward", b"[" * 100_000, 422),
        ("steer", {"job": "none", "what": "pause"}, 404),
    ],
)
def test_errors(door: OpenDoor, name: str, asked: object, status: int) -> None:
    found = door.ask(name, asked)
    assert found.status == status
    assert found.told["problem"] and set(found.told) == {"kind", "problem", "remedy", "nearest"}


def test_both_numbers_of_a_limit(door: OpenDoor) -> None:
    told = door.ask("forward", {"prompts": [[1] * 2049]}).told
    assert "2,049" in told["problem"] and "2,048" in told["problem"]


def test_events_of_a_generation(door: OpenDoor) -> None:
    asked = {"prompts": [IDS[0]], "max_new_tokens": 5}
    found = door.ask("generate", asked, headers={"Accept": "text/event-stream"})
    assert found.headers["content-type"].startswith("text/event-stream")
    events = [part.split("\n") for part in found.body.decode().strip().split("\n\n")]
    kinds = [lines[0].removeprefix("event: ") for lines in events]
    assert kinds == ["told"] * (len(kinds) - 1) + ["answer"]
    assert events[-1][1].removeprefix("data: ") == door.ask("generate", asked).body.decode()


def test_a_failure_as_an_event(door: OpenDoor) -> None:
    found = door.ask("generate", {}, headers={"Accept": "text/event-stream"})
    assert found.body.startswith(b"event: failure\ndata: {")


def slow() -> dict[str, object]:
    """A request of about a second."""
    return {"prompts": [[7, n] for n in range(64)], "max_new_tokens": 100}


def test_a_full_queue_says_when_to_come_back(door: OpenDoor) -> None:
    """64 at once: those that find no place are told so at once, and of the others none is lost."""
    found: list[tuple[int, dict[str, str]]] = []

    def ask() -> None:
        answer = door.ask("forward", {"prompts": IDS})
        found.append((answer.status, answer.headers))

    long = threading.Thread(target=lambda: door.ask("generate", slow()))
    long.start()
    while door.desk._waiting == 0:
        time.sleep(0)
    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in [*threads, long]:
        thread.join()
    statuses = [status for status, _ in found]
    assert len(found) == 64 and set(statuses) == {200, 503}
    assert statuses.count(200) >= door.desk.limits.waiting - 1
    assert all(headers["retry-after"] == "1" for status, headers in found if status == 503)


def test_quick_questions_while_the_model_is_busy(door: OpenDoor) -> None:
    long = threading.Thread(target=lambda: door.ask("generate", slow()))
    long.start()
    while door.desk._waiting == 0:
        time.sleep(0)
    asked = 0
    while long.is_alive() and asked < 5:
        assert door.ask("tokenize", {"texts": ["a"]}).status == 200
        assert door.ask("/health", method="GET", token=False).status == 200
        asked += 1
    assert door.desk._waiting == 1 or not long.is_alive()
    long.join()
    assert asked


def test_a_thousand_requests_leave_nothing_behind(door: OpenDoor) -> None:
    asked = {
        "prompts": [IDS[0]],
        "reads": [{"point": "layers.1.resid_post"}],
        "edits": [{"point": "layers.0.mlp.out", "kind": "patch", "prompts": [IDS[1]]}],
    }
    process = psutil.Process(os.getpid())
    door.ask("forward", asked)
    model = door.desk._model
    assert model is not None
    before = process.num_fds(), set(model.recordings(fetch=False)), process.num_threads()
    for number in range(1000):
        door.ask("tokenize" if number % 5 else "forward", {"texts": ["a"]} if number % 5 else asked)
    gc.collect()
    after = process.num_fds(), set(model.recordings(fetch=False)), process.num_threads()
    assert after[1] == before[1] == set() and abs(after[0] - before[0]) <= 2
    assert after[2] <= before[2] + 4


def test_records_alone(llama_here: ModelHere) -> None:
    with opened(OperationDesk(None, RequestLimits())) as it:
        assert it.ask("atlases").told == {"atlases": []}
        found = it.ask("forward", {"prompts": "a"})
        assert found.status == 503 and "only stored records" in found.told["problem"]
