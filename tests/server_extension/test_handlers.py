"""The URLs on a real Jupyter server, over real model servers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import garcon_jupyter as garcon
from garcon_jupyter.activation_stores import open_store
from garcon_jupyter.server_extension import launch_form
from garcon_jupyter.servers import fleet_files, registry
from tests.conftest import quiet
from tests.exchanges.conftest import make
from tests.server_extension.conftest import Jupyter

URLS = [
    ("GET", "garcon/servers"),
    ("GET", "garcon/models"),
    ("GET", "garcon/launch-fields"),
    ("POST", "garcon/launches"),
    ("DELETE", "garcon/launches/launch-1"),
    ("DELETE", "garcon/servers/tiny"),
    ("DELETE", "garcon/fleets/tiny"),
    ("POST", "garcon/jobs/pause"),
    ("POST", "garcon/servers/tiny/keep-alive"),
    ("POST", "garcon/servers/tiny/cancel"),
    ("GET", "garcon/servers/tiny/points"),
]


def until(condition: Callable[[], Any], seconds: float = 200) -> Any:
    """Wait until a condition is truthy; its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("It did not come about.")


def sentences(answer: Any) -> tuple[str, str]:
    """The problem and the remedy of an error, which are sentences."""
    assert answer["problem"].endswith("."), answer
    assert answer["remedy"].rstrip().endswith((".", "?")), answer
    return answer["problem"], answer["remedy"]


# -- who may ask ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), URLS)
def test_nobody_without_the_token(
    jupyter: Jupyter, llama_server: garcon.Server, method: str, path: str
) -> None:
    content = {} if method == "POST" else None
    assert jupyter.ask(method, path, content, headers={})[0] == 403
    wrong = {"Authorization": "token " + "0" * 32}
    assert jupyter.ask(method, path, content, headers=wrong)[0] == 403
    assert llama_server.alive


def test_a_cookie_alone_changes_nothing(jupyter: Jupyter, llama_server: garcon.Server) -> None:
    """A page of another site could make a browser send its cookies, but knows no XSRF token."""
    cookies = urllib.request.HTTPCookieProcessor()
    visit = urllib.request.build_opener(cookies)
    visit.open(f"{jupyter.address}/login?token={jupyter.token}").read()
    crumbs = {cookie.name: cookie.value or "" for cookie in cookies.cookiejar}
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in crumbs.items())}
    path = f"garcon/servers/{llama_server.name}/keep-alive"
    status, answer = jupyter.ask("POST", path, {}, headers=headers)
    assert status == 403 and "_xsrf" in answer["message"]
    headers["X-XSRFToken"] = crumbs["_xsrf"]
    assert jupyter.ask("POST", path, {}, headers=headers)[0] == 200


# -- what runs -----------------------------------------------------------------------------------


def test_servers_are_told_as_they_are(jupyter: Jupyter, rmodel: garcon.RemoteModel) -> None:
    facts = rmodel.server.facts
    me = rmodel.session, os.getpid()
    until(lambda: me in {(c["session"], c["pid"]) for c in jupyter.server("tiny")["clients"]})
    told = jupyter.server("tiny")
    assert told["state"] == "idle" and told["problem"] == ""
    for word in ("path", "host", "pid", "model", "degrees"):
        assert told[word] == facts[word], word
    assert [rank["pid"] for rank in told["ranks"]] == [rank["pid"] for rank in facts["ranks"]]
    resident = psutil.Process(facts["pid"]).memory_info().rss
    assert told["ranks"][0]["memory"] == pytest.approx(resident, rel=0.2)
    assert told["running"] is None and told["waiting"] == []


def test_looking_does_not_keep_a_server_alive(jupyter: Jupyter, rmodel: garcon.RemoteModel) -> None:
    rmodel.forward([[5, 6, 7]], logits="none")
    start = time.monotonic()
    lefts = []
    while time.monotonic() - start < 3.5:  # longer than an answer is kept
        lefts.append(jupyter.server("tiny")["idle_left"])
        jupyter.ask("GET", "garcon/servers/tiny/points")
    assert lefts == sorted(lefts, reverse=True)
    assert lefts[-1] <= 3600 - 2
    status, answer = jupyter.ask("POST", "garcon/servers/tiny/keep-alive", {})
    assert status == 200 and answer["idle_left"] > 3599
    assert jupyter.server("tiny")["idle_left"] > 3599


def test_many_who_look_are_one_question(jupyter: Jupyter, llama_server: garcon.Server) -> None:
    jupyter.server("tiny")
    start = time.monotonic()
    lefts = {jupyter.server("tiny")["idle_left"] for _ in range(10)}
    assert len(lefts) <= 1 + (time.monotonic() - start) / 0.9


def test_points_are_those_of_the_model(jupyter: Jupyter, rmodel: garcon.RemoteModel) -> None:
    before = {client["session"] for client in rmodel.status()["clients"]}
    status, tree = jupyter.ask("GET", "garcon/servers/tiny/points")
    assert status == 200
    catalog = rmodel.catalog
    assert (tree["n_layers"], tree["n_experts"]) == (catalog.n_layers, catalog.n_experts)
    filled = {}
    for row in tree["points"]:
        for layer in [None] if row["layers"] is None else row["layers"]:
            filled[row["template"].replace("{i}", str(layer))] = row["shape"]
    assert set(filled) == set(catalog.names())
    for name, shape in filled.items():
        assert shape == list(catalog.shape(catalog.point(name))), name
    assert filled["layers.3.mlp.post_activation"] == ["b", "p", 80]
    # Whoever asked has gone again.
    assert {client["session"] for client in rmodel.status()["clients"]} == before


def test_models_are_offered(jupyter: Jupyter) -> None:
    _, offers = jupyter.ask("GET", "garcon/models")
    assert offers[0]["path"] == "smollm2"
    assert offers[0]["title"] == "SmolLM2-135M-Instruct"


def test_the_fields_of_the_dialog_are_the_declared_options(jupyter: Jupyter) -> None:
    status, fields = jupyter.ask("GET", "garcon/launch-fields")
    assert status == 200 and fields == launch_form.fields()


# -- requests ------------------------------------------------------------------------------------


class Stuck:
    """A forward that goes on until it is cancelled, in a thread."""

    def __init__(self, model: garcon.RemoteModel) -> None:
        self.error: BaseException | None = None
        self._model = model
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        def wait(save_ctx: Any, tensor: Any) -> None:
            import time

            while True:
                time.sleep(0.01)

        try:
            probe = self._model.probe_points["layers.1.mlp.out"].probe(wait)
            self._model.forward([[5, 6, 7]], probes=[probe], logits="none")
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    def ended(self) -> BaseException | None:
        """How it ended."""
        self._thread.join(30)
        return self.error


def test_requests_are_seen_and_cancelled(jupyter: Jupyter, llama_server: garcon.Server) -> None:
    first, second = garcon.connect("tiny"), garcon.connect("tiny")
    running = Stuck(first)
    work = until(lambda: jupyter.server("tiny")["running"])
    waiting = Stuck(second)
    (queued,) = until(lambda: jupyter.server("tiny")["waiting"])
    assert (work["session"], work["kind"]) == (first.session, "forward")
    assert (queued["session"], queued["kind"]) == (second.session, "forward")
    assert jupyter.server("tiny")["state"] == "busy"
    cancel = "garcon/servers/tiny/cancel"
    status, answer = jupyter.ask("POST", cancel, {"request": queued["request"]})
    assert (status, answer) == (200, {"running": False})
    assert isinstance(waiting.ended(), garcon.Interrupted)
    assert jupyter.server("tiny")["running"]["request"] == work["request"]  # the other goes on
    status, answer = jupyter.ask("POST", cancel, {"request": work["request"]})
    assert (status, answer) == (200, {"running": True})
    assert isinstance(running.ended(), garcon.Interrupted)
    assert first.forward([[5]], logits="last").shape == (1, 263)
    first.close()
    second.close()


# -- launching and stopping ----------------------------------------------------------------------


def launches(jupyter: Jupyter) -> dict[str, Any]:
    _, told = jupyter.ask("GET", "garcon/servers")
    return {launch["id"]: launch for launch in told["launches"]}


def test_a_server_is_launched_falls_silent_and_is_stopped(
    jupyter: Jupyter, llama_path: Path, llama_server: garcon.Server
) -> None:
    words = {"path": str(llama_path), "name": "launched", "idle_timeout": "30m", "tp": None}
    status, launch = jupyter.ask("POST", "garcon/launches", words)
    assert status == 202 and launch["state"] == "starting"
    done = until(lambda: launches(jupyter)[launch["id"]]["state"] == "done")
    assert done and launches(jupyter)[launch["id"]]["server"] == "launched"
    told = jupyter.server("launched")
    assert told["path"] == str(llama_path) and 1790 < told["idle_left"] <= 1800

    model = garcon.connect("launched")
    process = psutil.Process(registry.find("launched").facts["pid"])
    process.suspend()
    try:
        silent = until(lambda: (told := jupyter.server("launched"))["state"] == "silent" and told)
        assert silent["problem"] == "It has not answered yet."
    finally:
        process.resume()
    until(lambda: jupyter.server("launched")["state"] == "idle")

    for child in psutil.Process(told["supervisor"]).children():
        if child != process:  # without the preloaded process the start takes long enough to be seen
            child.kill()
    process.kill()  # the ranks start anew, and it is the same server
    restarting = until(
        lambda: (told := jupyter.server("launched"))["state"] == "restarting" and told
    )
    assert restarting["problem"].startswith("It starts anew: rank 0")
    back = until(lambda: (told := jupyter.server("launched"))["state"] == "idle" and told)
    assert back["supervisor"] == told["supervisor"] and back["pid"] != told["pid"]

    model.forward([[5]], logits="none")  # whoever was connected still is
    status, answer = jupyter.ask("DELETE", "garcon/servers/launched")
    problem, _ = sentences(answer)
    assert status == 400 and model.session in problem  # somebody uses it
    assert jupyter.ask("DELETE", "garcon/servers/launched?force=1") == (200, {})
    assert "launched" not in {server.name for server in garcon.servers()}
    model.close()


def test_a_fleet_is_told_and_stopped_as_one(
    jupyter: Jupyter, llama_path: Path, llama_server: garcon.Server
) -> None:
    """Beside a server that has its name."""
    fleet = garcon.fleet({"step 0": llama_path}, "tiny", progress=quiet)
    servers = {"step 0": "tiny.step-0", "gone": "tiny.gone"}
    fleet_files.write("tiny", servers, {"step 0": llama_path, "gone": Path("/models/gone")})
    _, told = jupyter.ask("GET", "garcon/servers")
    (found,) = told["fleets"]
    assert (found["name"], found["in_turn"], found["loaded"]) == ("tiny", False, None)
    assert found["members"] == [
        {"label": "step 0", "server": "tiny.step-0", "path": str(llama_path)},
        {"label": "gone", "server": "tiny.gone", "path": "/models/gone"},
    ]
    fleet.map(lambda model: model.forward([[5]], logits="none"))
    status, answer = jupyter.ask("DELETE", "garcon/fleets/tiny")
    problem, _ = sentences(answer)
    assert status == 400 and fleet["step 0"].session in problem  # somebody uses it
    assert jupyter.ask("DELETE", "garcon/fleets/tiny?force=1") == (200, {})
    assert "tiny.step-0" not in {server.name for server in garcon.servers()}
    assert jupyter.ask("GET", "garcon/servers")[1]["fleets"] == []
    assert llama_server.alive and fleet_files.read("tiny") is None


@pytest.mark.parametrize("others", [False, True])
def test_a_fleet_in_turn_says_which_member_is_loaded(
    jupyter: Jupyter, llama_path: Path, llama_server: garcon.Server, others: bool
) -> None:
    first = Path("/models/first")
    paths = {"first": first, "second": first if others else llama_path}
    fleet_files.write("turns", dict.fromkeys(paths, "tiny"), paths)
    try:
        (found,) = jupyter.ask("GET", "garcon/servers")[1]["fleets"]
        assert found["in_turn"] and found["loaded"] == (None if others else "second")
        assert [member["server"] for member in found["members"]] == ["tiny", "tiny"]
    finally:
        (registry.registry_directory() / "turns.fleet").unlink()


def test_a_launch_that_fails_says_why(jupyter: Jupyter, tmp_path: Path) -> None:
    status, launch = jupyter.ask("POST", "garcon/launches", {"path": str(tmp_path / "nothing")})
    assert status == 202
    failed = until(lambda: (told := launches(jupyter)[launch["id"]])["state"] == "failed" and told)
    problem, remedy = sentences(failed)
    assert problem == f"There is no {tmp_path / 'nothing'}." and "smollm2" in remedy
    assert jupyter.ask("DELETE", f"garcon/launches/{launch['id']}") == (200, {})
    assert launch["id"] not in launches(jupyter)


def test_a_launch_is_stopped(jupyter: Jupyter, llama_path: Path) -> None:
    words = {"path": str(llama_path), "name": "unwanted"}
    _, launch = jupyter.ask("POST", "garcon/launches", words)
    until(lambda: launches(jupyter)[launch["id"]]["lines"])  # it is under way
    assert jupyter.ask("DELETE", f"garcon/launches/{launch['id']}") == (200, {})
    until(lambda: not _processes_of("unwanted"))
    assert "unwanted" not in {server.name for server in garcon.servers()}


def _processes_of(name: str) -> list[psutil.Process]:
    """Processes that serve, or launch, a server of a name."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if "server_extension.worker" in line or ("garcon_backend" in line and name in line):
            found.append(process)
    return found


# -- wrong questions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "A launch takes a JSON object."),
        ({}, "A launch needs a path."),
        ({"path": "  "}, "No model was named."),
        ({"path": "x", "paht": 1}, "A launch takes no 'paht'."),
        ({"path": 7}, "path is 7."),
        ({"path": "x", "tp": "two"}, "tp is 'two'."),
        ({"path": "x", "tp": True}, "tp is True."),
        ({"path": "x", "loader": "os:system"}, "A launch takes no 'loader'."),
    ],
)
def test_words_that_make_no_sense(jupyter: Jupyter, words: Any, says: str) -> None:
    status, answer = jupyter.ask("POST", "garcon/launches", words)
    if status == 202:  # only the launch itself can tell
        answer = until(
            lambda: (told := launches(jupyter)[answer["id"]])["state"] == "failed" and told
        )
        jupyter.ask("DELETE", f"garcon/launches/{answer['id']}")
    else:
        assert status == 400 and answer["kind"] == "BadRequest"
    assert sentences(answer)[0] == says


def test_names_that_there_are_not(jupyter: Jupyter, llama_server: garcon.Server) -> None:
    status, answer = jupyter.ask("GET", "garcon/servers/tinny/points")
    assert (status, answer["kind"]) == (404, "UnknownServer")
    problem, remedy = sentences(answer)
    assert problem == "There is no running server 'tinny'." and "Did you mean tiny" in remedy
    for method, path in (
        ("DELETE", "garcon/servers/tinny"),
        ("POST", "garcon/servers/tinny/keep-alive"),
        ("DELETE", "garcon/launches/launch-99"),
        ("DELETE", "garcon/fleets/tiny"),
    ):
        status, answer = jupyter.ask(method, path, {} if method == "POST" else None)
        assert status == 404, path
        sentences(answer)
    status, answer = jupyter.ask("POST", "garcon/servers/tiny/cancel", {"request": 5})
    assert (status, answer["kind"]) == (400, "BadRequest")
    # A request that is over: nothing happens.
    assert jupyter.ask("POST", "garcon/servers/tiny/cancel", {"request": "over"}) == (
        200,
        {"running": False},
    )


# -- jobs ----------------------------------------------------------------------------------------

HELD = """
import sys
from garcon_jupyter.exchanges import shuffle
def told(line):
    sys.stdin.readline()
shuffle(sys.argv[1], sys.argv[2], 7, progress=told)
"""


def test_jobs_are_told_and_steered(jupyter: Jupyter, tmp_path: Path) -> None:
    """A shuffle of another process: seen, paused, gone on with by nobody, and none afterwards."""
    source, out = make(tmp_path / "acts"), tmp_path / "mixed"

    def job() -> dict[str, Any] | None:
        _, told = jupyter.ask("GET", "garcon/servers")
        return next((each for each in told["jobs"] if each["name"] == str(out)), None)

    def steer(what: str) -> tuple[int, Any]:
        return jupyter.ask("POST", f"garcon/jobs/{what}", {"job": str(out)})

    command = [sys.executable, "-c", HELD, str(source.path), str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        running = until(job)
        assert (running["title"], running["kind"]) == ("mixed", "shuffle")
        assert running["state"] == "running" and running["fraction"] is None
        assert "2,000 rows" in running["told"]
        assert steer("pause") == (200, {})
        assert until(job)["state"] == "pausing"
    paused = until(lambda: (found := job()) and found["state"] == "paused" and found)
    assert "2,000 rows" in paused["told"]

    status, answer = jupyter.ask("POST", "garcon/jobs/pauze", {"job": str(out)})
    assert status == 404 and sentences(answer)[0] == "There is no word 'pauze'."
    status, answer = jupyter.ask("POST", "garcon/jobs/pause", {})
    assert status == 400 and sentences(answer)[0] == "No job was named."
    status, answer = jupyter.ask("POST", "garcon/jobs/pause", {"job": "nothing"})
    assert status == 404 and sentences(answer)[0] == "There is no job 'nothing'."

    assert steer("resume") == (200, {})
    until(lambda: job() is None)
    assert len(open_store(out)) == 2000
