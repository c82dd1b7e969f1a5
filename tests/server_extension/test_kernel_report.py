"""What a notebook's kernel tells the side bar, and that telling costs nobody anything."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import garcon_jupyter as garcon
from tests.dictionaries.making import saelens
from tests.server_extension.answers import EXAMPLES, check

POINT = "layers.1.mlp.post_activation"


@pytest.fixture
def shell() -> Iterator[Any]:
    """A fresh shell without the magics."""
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    yield InteractiveShell.instance(config=config)
    InteractiveShell.clear_instance()


def told(shell: Any) -> dict[str, Any]:
    """The answer as it comes through a user expression; it is like the examples that the side bar knows."""
    expression = (
        "__import__('garcon_jupyter.server_extension.kernel_report', fromlist=['told']).told()"
    )
    answer = shell.user_expressions({"garcon": expression})["garcon"]
    assert answer["status"] == "ok", answer
    content = json.loads(answer["data"]["text/plain"])
    check(content, EXAMPLES["told"])
    return content


def told_latest(shell: Any) -> dict[str, Any]:
    """The answer once it is current."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if (answer := told(shell))["current"]:
            return answer
        time.sleep(0.01)
    raise AssertionError("It never was current.")


def save(save_ctx: Any, tensor: Any) -> None:
    save_ctx.tensor = tensor
    save_ctx.note = "a text"


def test_a_notebook_without_garcon(shell: Any) -> None:
    nothing = {"model": None, "probes": [], "dictionaries": [], "recordings": [], "current": True}
    assert told(shell) == {"magics": False, **nothing}
    shell.run_cell("%load_ext garcon_jupyter")
    shell.user_ns["rmodel"] = "something else"
    assert told(shell) == {"magics": True, **nothing}


def test_dictionaries_that_are_loaded(
    shell: Any, rmodel: garcon.RemoteModel, tmp_path: Path
) -> None:
    shell.user_ns["rmodel"] = rmodel
    assert told(shell)["dictionaries"] == []
    width = rmodel.catalog.sizes["D"]
    files = saelens(tmp_path / "one", width, 96, "blocks.1.hook_resid_post", "topk", k=5)
    sae = rmodel.dictionaries.load(files, name="one", show=False)
    try:
        (one,) = told(shell)["dictionaries"]
        assert (one["name"], one["kind"], one["latents"]) == ("one", "SAELens topk", 96)
        assert one["where"] == "layers.1.resid_post"
        assert one["bytes"] == 4 * (2 * width * 96 + width + 96)
        assert one["path"] == str(files) and "5 largest" in one["formula"]
        names = [point["point"] for point in one["points"]]
        assert names == sae.points.names()
        shapes = [point["shape"] for point in one["points"]]
        assert shapes == [["b", "p", 96]] * 2 + [["b", "p", width]] * 2
        assert [point["what"] for point in one["points"]][1] == "latents of one"
        other = garcon.connect(rmodel.server.name)  # whoever connects later is told the same
        shell.user_ns["rmodel"] = other
        assert told_latest(shell)["dictionaries"] == [one]
        shell.user_ns["rmodel"] = rmodel
        other.close()
    finally:
        sae.unload()
    assert told(shell)["dictionaries"] == []


def test_probes_and_recordings_as_they_are(shell: Any, rmodel: garcon.RemoteModel) -> None:
    shell.user_ns["rmodel"] = rmodel
    facts = rmodel.facts
    answer = told_latest(shell)
    assert answer["model"] == {
        "server": "tiny",
        "supervisor": facts["supervisor"],
        "session": rmodel.session,
    }
    assert answer["probes"] == [] and answer["recordings"] == []

    point = rmodel.probe_points[POINT]
    rmodel.attach(point.probe(save), point.probe(save, name="second", grad=True))
    rmodel.attach(rmodel.probe_points["logits"].probe(save), once=True)
    assert [(p["point"], p["name"], p["grad"], p["once"]) for p in told(shell)["probes"]] == [
        (POINT, None, False, False),
        (POINT, "second", True, False),
        ("logits", None, False, True),
    ]
    rmodel.forward([[5, 6, 7]], probes=[point.probe(save)], logits="none")
    answer = told_latest(shell)
    (recording,) = answer["recordings"]
    assert (recording["point"], recording["name"]) == (POINT, None)
    tensor, note = recording["attributes"]
    assert (tensor["name"], tensor["shape"], tensor["dtype"]) == ("tensor", [1, 3, 80], "float32")
    assert (note["name"], note["shape"]) == ("note", None) and "a text" in note["preview"]

    rmodel.clear_recordings()
    assert told_latest(shell)["recordings"] == []
    rmodel.close()
    assert told(shell)["model"] is None


def test_telling_is_no_request_where_nothing_changed(
    shell: Any, rmodel: garcon.RemoteModel
) -> None:
    shell.user_ns["rmodel"] = rmodel
    rmodel.forward([[5, 6, 7]], logits="none")
    told_latest(shell)
    before = rmodel.status()["idle_left"]
    time.sleep(0.2)
    for _ in range(20):
        assert told(shell)["current"]
    rested = rmodel.status()["idle_left"]
    assert rested < before - 0.1  # the clock runs on
    rmodel.forward([[5, 6, 7]], logits="none")
    assert rmodel.status()["idle_left"] > rested  # which a request does set back


def test_telling_does_not_wait_for_a_busy_server(shell: Any, rmodel: garcon.RemoteModel) -> None:
    """The wrong answer is to ask the server for recordings and wait: another's request runs there."""
    other = garcon.connect("tiny")

    def linger(save_ctx: Any, tensor: Any) -> None:
        import time

        time.sleep(1.5)

    probe = other.probe_points[POINT].probe(linger)
    rmodel.forward([[5]], probes=[rmodel.probe_points[POINT].probe(save)], logits="none")
    busy = threading.Thread(
        target=other.forward, args=([[5]],), kwargs={"probes": [probe], "logits": "none"}
    )
    busy.start()
    while rmodel.status()["running"] is None:
        time.sleep(0.01)
    shell.user_ns["rmodel"] = rmodel
    start = time.monotonic()
    first = told(shell)
    assert time.monotonic() - start < 0.5
    assert not first["current"] and first["recordings"] == []
    assert [r["point"] for r in told_latest(shell)["recordings"]] == [POINT]
    busy.join()
    other.close()


@pytest.mark.processes
def test_a_server_that_is_gone(shell: Any, llama_path: Any) -> None:
    server = garcon.launch(llama_path, name="short-lived", progress=lambda line: None)
    model = garcon.connect("short-lived")
    shell.user_ns["rmodel"] = model
    model.forward([[5]], probes=[model.probe_points[POINT].probe(save)], logits="none")
    assert told_latest(shell)["recordings"]
    model.forward([[5]], logits="none")
    model.shutdown(force=True)
    answer = told_latest(shell)
    assert answer["model"]["server"] == server.name and answer["recordings"] == []
