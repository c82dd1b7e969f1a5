"""An atlas's units are explained; the unit's page, the page of all units and the magic say so."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import garcon_jupyter as garcon
from garcon_jupyter.display import atlas as pages
from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.explanations import explain, of_record, open_explanations, plan_explanations
from garcon_jupyter.explanations.records.excerpts import levels
from garcon_jupyter.widgets import NeuronWidget
from tests.explanations.conftest import as_reply, asked_tokens, known_levels, simulating
from tests.magics.conftest import Notebook, notebook  # noqa: F401 - a fixture
from tests.widgets.conftest import _read_svg as read_svg

POINT = "layers.2.mlp.post_activation"
ROWS = np.random.default_rng(3).integers(3, 263, size=(60, 14))


def make(model: garcon.RemoteModel, path: Path, rows: np.ndarray = ROWS) -> garcon.Atlas:
    return model.atlas(POINT, rows, path, k=24, before=3, after=2, batch_tokens=280, show=False)


@pytest.fixture(scope="module")
def atlas(llama_here: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[garcon.Atlas]:
    """A fresh atlas of the small Llama, whose units 3 and 8 are explained."""
    model = garcon.connect(llama_here)
    made = make(model, tmp_path_factory.mktemp("pages") / "tiny")
    model.close()
    records = [of_record(made[POINT, unit]) for unit in (3, 8)]
    known = known_levels(*records)
    names = iter(["<b>capital</b> cities", "days of the week"])

    def answer(tokens: tuple[str, ...], explanation: str) -> str:
        return as_reply(tokens, known[tokens])

    judge = simulating(answer)
    said = {(POINT, unit): next(names) for unit in (3, 8)}
    explain(made, said=said, judge_with=judge, score=["simulation"], show=False)
    yield made


def test_explanations_lie_beside_the_atlas_and_are_found(atlas: garcon.Atlas) -> None:
    store = open_explanations(atlas)
    assert len(store) == 2 and store.directory == atlas.path / "explanations"
    (one,) = store.of(POINT, 8)
    assert one.explanation.text == "days of the week"
    record = of_record(atlas[POINT, 8])
    true = [value for part in record.test for value in part.values]
    told = [level for part in record.test for level in levels(part.values, record.largest)]
    assert one.scores["correlation"].value == pytest.approx(np.corrcoef(true, told)[0, 1])
    assert [one.explanation.unit for one in store.search("capital")] == [3]
    again = garcon.open_atlas(atlas.path)
    assert open_explanations(again).all() == store.all()


def test_a_units_page_says_what_it_fires_for(atlas: garcon.Atlas) -> None:
    made = pages.dashboard(atlas[POINT, 8])
    (said,) = made["said"]
    assert said["text"] == "days of the week"
    assert said["scores"].startswith("correlation 0.") and "(others' " in said["scores"]
    assert "said" not in pages.dashboard(atlas[POINT, 4])
    still = read_svg(atlas[POINT, 8].show().still())
    assert "“days of the week”" in still and "correlation" in still
    assert "<b>" not in read_svg(atlas[POINT, 3].show().still())


def test_the_page_moves_what_is_below_and_is_as_before_without(atlas: garcon.Atlas) -> None:
    record: dict[str, Any] = {"name": "n", "top": [{"tokens": ["a"], "values": [1.0]}]}
    plain = NeuronWidget(record).still()
    assert plain == NeuronWidget({**record, "said": []}).still()
    said = [{"text": "x" * 200, "by": "y" * 200, "scores": "z"}]
    assert NeuronWidget({**record, "said": said}).still() != plain
    assert NeuronWidget({**record, "said": [{"text": "x"}]}).record["said"] == [
        {"text": "x", "by": "", "scores": ""}
    ]


def test_words_are_searched_for_on_the_page_of_all_units(atlas: garcon.Atlas) -> None:
    page = pages.browse(atlas)
    token, found = page.children[1].children
    token.value = "capital"
    assert (f"{POINT} 3: <b>capital</b> cities", (POINT, 3)) in found.options
    found.value = (POINT, 3)
    assert page.children[0].children[1].value == 3


def test_an_atlas_made_anew_shows_none_of_the_old(llama_here: Any, tmp_path: Path) -> None:
    model = garcon.connect(llama_here)
    first = make(model, tmp_path / "again")
    record = of_record(first[POINT, 3])
    known = known_levels(record)
    judge = simulating(lambda tokens, explanation: as_reply(tokens, known[tokens]))
    explain(first, said={(POINT, 3): "x"}, judge_with=judge, score=["simulation"], show=False)
    second = make(model, tmp_path / "again", ROWS[:50])
    model.close()
    store = open_explanations(second)
    assert len(store) == 0 and store.stale == 1
    assert "said" not in pages.dashboard(second[POINT, 3])


def test_units_that_there_are_not_and_that_never_fire_are_told(atlas: garcon.Atlas) -> None:
    judge = simulating(lambda tokens, explanation: "")
    with pytest.raises(UnknownName, match="has no unit 99999"):
        plan_explanations(atlas, [(POINT, 99999)], with_=judge)
    with pytest.raises(BadRequest, match="No units were given"):
        plan_explanations(atlas, with_=judge)


def test_what_came_of_it_is_a_table(atlas: garcon.Atlas) -> None:
    judge = simulating(lambda tokens, explanation: "?")
    found = explain(
        atlas,
        [(POINT, 5)],
        with_=judge,
        score=["simulation"],
        show=False,
        where=atlas.path / "other",
    )
    table = found._repr_html_()
    assert table and "a thing" in table and "failed (not JSON" in table and "undefined" in table
    assert str(found).startswith(f"{POINT} 5: a thing\n  correlation undefined")


# -- the magic -------------------------------------------------------------------------------------


@pytest.fixture
def address() -> Iterator[Callable[[Any], str]]:
    """Serves replies to messages by OpenAI's protocol; gives the address."""
    servers = []

    def serve(reply: Callable[[Any], str]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                said = {"message": {"content": reply(body["messages"])}, "finish_reason": "stop"}
                data = json.dumps({"choices": [said]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_magic_explains_with_a_model_at_an_address(
    notebook: Notebook,  # noqa: F811
    atlas: garcon.Atlas,
    address: Callable[[Any], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    record = of_record(atlas[POINT, 12])
    known = known_levels(record)

    def reply(messages: Any) -> str:
        if "\nTokens: " not in messages[-1]["content"]:
            return "names of rivers"
        tokens = asked_tokens(messages)
        return as_reply(tokens, known[tokens])

    notebook["where"], notebook["url"] = str(atlas.path), address(reply)
    line = f"%garcon explain {{where}} {POINT} 12 --at {{url}} --model m --score simulation --controls 0"
    told = notebook.run(f"{line} --cost")
    asked = 1 + len(record.calibration) + len(record.test)
    assert f"1 units to explain: {asked} requests, about" in told
    shown = notebook.run(line)
    assert f"1 units: {asked} requests" in shown
    (one,) = notebook["explained"]
    assert one.explanation.text == "names of rivers" and one.judge == "m"
    assert "names of rivers" in notebook.run("%garcon explain {where} --search rivers")
    assert "None says that." in notebook.run("%garcon explain {where} --search nothing-of-it")
    assert "has no name" in notebook.fails("%garcon explain {where} p 1 --at {url}", BadRequest)
    assert "No units" in notebook.fails("%garcon explain {where} --at {url} --model m", BadRequest)
