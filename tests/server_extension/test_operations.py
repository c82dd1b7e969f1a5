"""The table of operations below the Jupyter server's own URLs."""

from __future__ import annotations

import http.client
import json

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.operations.operation import Door
from garcon_jupyter.operations.table import OPERATIONS
from tests.server_extension.conftest import Jupyter

pytestmark = pytest.mark.processes

URL = "garcon/servers/tiny/v1"


def test_an_answer_is_that_of_the_operation(jupyter: Jupyter, rmodel: garcon.RemoteModel) -> None:
    asked = {"prompts": [[1, 2, 3]], "reads": [{"point": "layers.1.resid_post"}], "likely": 2}
    status, told = jupyter.ask("POST", f"{URL}/forward", asked)
    wanted = json.loads(OPERATIONS["forward"](Door(rmodel), asked).model_dump_json())
    assert (status, told) == (200, wanted)


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        (f"{URL}/nothing", {}, 404),
        (f"{URL}/forward", {}, 422),
        ("garcon/servers/nobody/v1/describe", {}, 404),
        (f"{URL}/forward", {"prompts": "a" * (9 << 20)}, 413),
    ],
)
def test_errors(
    jupyter: Jupyter, llama_server: garcon.Server, path: str, content: object, status: int
) -> None:
    found, told = jupyter.ask("POST", path, content)
    assert found == status and told["problem"]


def test_without_the_token(jupyter: Jupyter, llama_server: garcon.Server) -> None:
    status, _ = jupyter.ask("POST", f"{URL}/describe", {}, headers={})
    assert status == 403


def test_who_hangs_up_calls_the_request_off(jupyter: Jupyter, rmodel: garcon.RemoteModel) -> None:
    line = http.client.HTTPConnection(jupyter.address.removeprefix("http://"), timeout=30)
    long = {"prompts": [[7, n] for n in range(64)], "max_new_tokens": 120}
    headers = {"Authorization": f"token {jupyter.token}", "Content-Type": "application/json"}
    line.request("POST", f"/{URL}/generate", json.dumps(long), headers)
    while not rmodel.status()["running"]:
        pass
    line.close()
    while rmodel.status()["running"]:  # or until the test's own time is over
        pass
    assert jupyter.ask("POST", f"{URL}/forward", {"prompts": [[1, 2]]})[0] == 200
