"""What every kind of connection promises: in this process, by sockets to one rank, and to two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import RemoteModel
from garcon_jupyter.connection import background
from garcon_jupyter.connection.connection import Connection, Endpoint
from garcon_jupyter.wire import protocol
from tests.oracle import PROMPT, Plain, close

OUT = "layers.2.mlp.out"

KINDS = {"here": "llama_here", "tiny": "llama_server", "tiny-tp2": "llama_tp2_server"}


ELSEWHERE = [pytest.param(name, marks=pytest.mark.processes) for name in ("tiny", "tiny-tp2")]


@pytest.fixture(params=["here", *ELSEWHERE])
def kind(request: pytest.FixtureRequest) -> Endpoint:
    """What a connection leads to, of each kind."""
    endpoint: Endpoint = request.getfixturevalue(KINDS[request.param])
    return endpoint


@pytest.fixture
def model(kind: Endpoint) -> Iterator[RemoteModel]:
    """A fresh session on it."""
    with_session = garcon.connect(kind)
    yield with_session
    with_session.close()


@pytest.fixture
def line(kind: Endpoint) -> Iterator[Connection]:
    """A bare connection."""
    connection = kind.connect()
    yield connection
    connection.close()


def save(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.kept = tensor


# -- questions -----------------------------------------------------------------------------------


def test_it_knows_what_it_leads_to(kind: Endpoint, line: Connection) -> None:
    assert isinstance(kind, Endpoint)
    assert line.facts["name"] == kind.name and line.facts == kind.facts
    assert line.mine and line.same_host and line.request_id is None
    other = kind.connect()
    assert other.key == line.key and other is not line
    other.close()


def test_a_question_is_answered_as_plain_data(line: Connection) -> None:
    told = line.ask(protocol.STATUS, {})
    assert told["running"] is None and told["waiting"] == [] and told["buffers"] == []
    assert [rank["rank"] for rank in told["ranks"]] == list(range(len(line.facts["ranks"])))


def test_a_question_that_is_none_is_refused(line: Connection) -> None:
    with pytest.raises(garcon.BadRequest, match="request"):
        line.ask(protocol.CANCEL, {})
    line.ask(protocol.STATUS, {})  # and the next is heard


def test_a_request_of_no_session_is_refused(line: Connection) -> None:
    with pytest.raises(garcon.BadRequest, match="open session"):
        line.request({"session": "nobody"}, {"not": "a request"}, lambda *told: None)


# -- sessions ------------------------------------------------------------------------------------


def test_sessions_are_apart_and_stay(kind: Endpoint, model: RemoteModel) -> None:
    other = garcon.connect(kind)
    assert other.session != model.session
    other.forward(PROMPT, probes=[other.probe_points[OUT].probe(save)], logits="none")
    assert len(other.recordings()) == 1 and len(model.recordings()) == 0
    other.close()
    again = garcon.connect(kind, session=other.session)
    assert again.resumed and len(again.recordings()) == 1
    again.clear_recordings()
    again.close()
    with pytest.raises(garcon.NotConnected, match=r"was closed"):
        again.forward(PROMPT)


# -- values --------------------------------------------------------------------------------------


def test_values_are_transformers_own(model: RemoteModel, plain: Plain) -> None:
    assert close(model.forward(PROMPT), plain.logits(PROMPT))
    assert model._channel.took > 0
    assert model.decode(model.encode("garçon", special=False).ids[0]) == "garçon"


def test_neither_side_holds_memory_of_the_other(model: RemoteModel, plain: Plain) -> None:
    weight = model.get_parameter("layers.0.mlp.up_proj")
    before = weight.clone()
    weight.zero_()
    assert torch.equal(model.get_parameter("layers.0.mlp.up_proj"), before)
    model.forward(PROMPT, probes=[model.probe_points[OUT].probe(save)])
    first = model.recordings()[OUT].kept
    kept = first.clone()
    first.fill_(7)
    assert torch.equal(model.recordings()[OUT].kept, kept)
    ids = torch.tensor(PROMPT)

    def overwrite(save_ctx: Any, tensor: Tensor) -> None:
        tensor.zero_()

    model.forward(ids, probes=[model.probe_points["embed.out"].probe(overwrite)])
    assert ids.tolist() == PROMPT
    assert close(model.forward(PROMPT, probes=[]), plain.logits(PROMPT))


def test_a_function_goes_as_it_is_at_that_moment(model: RemoteModel) -> None:
    seen: list[int] = []

    def note(save_ctx: Any, tensor: Tensor) -> None:
        seen.append(len(tensor))
        save_ctx.seen = list(seen)

    model.forward(PROMPT, probes=[model.probe_points[OUT].probe(note)], logits="none")
    model.forward(PROMPT, probes=[model.probe_points[OUT].probe(note)], logits="none")
    assert seen == []  # the list that it fills is a copy, and another one each time
    assert model.recordings()[OUT].seen == [2]


# -- errors --------------------------------------------------------------------------------------


def test_what_cannot_travel_is_refused_before_it_goes(model: RemoteModel) -> None:
    import threading

    lock = threading.Lock()

    def waits(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.locked = lock.locked()

    with pytest.raises(garcon.BadProbe, match=r"'lock', a lock, cannot be pickled"):
        model.forward(PROMPT, probes=[model.probe_points[OUT].probe(waits)])


def test_a_saved_value_that_cannot_travel_is_named(model: RemoteModel) -> None:
    def saves(save_ctx: Any, tensor: Tensor) -> None:
        import threading

        save_ctx.lock = threading.Lock()

    model.forward(PROMPT, probes=[model.probe_points[OUT].probe(saves)])
    with pytest.raises(garcon.CannotTravel, match=r"layers\.2\.mlp\.out\.lock"):
        _ = model.recordings()[OUT].lock


def test_what_a_probe_raises_is_told_with_its_line(model: RemoteModel, plain: Plain) -> None:
    def fails(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.before = 1
        raise ValueError("no such thing")

    with pytest.raises(garcon.ProbeError, match="no such thing") as caught:
        model.forward(PROMPT, probes=[model.probe_points[OUT].probe(fails)])
    assert 'raise ValueError("no such thing")' in str(caught.value)
    assert model.recordings()[OUT].before == 1
    assert close(model.forward(PROMPT, probes=[]), plain.logits(PROMPT))


def test_a_probe_cannot_ask_for_another_request(model: RemoteModel) -> None:
    def asks(save_ctx: Any, tensor: Tensor) -> None:
        model.forward(PROMPT)

    with pytest.raises(garcon.BadProbe, match="belongs to this process"):
        model.forward(PROMPT, probes=[model.probe_points[OUT].probe(asks)])


# -- prints --------------------------------------------------------------------------------------


def test_prints_come_in_order_to_whoever_asked(
    model: RemoteModel, capsys: pytest.CaptureFixture[str]
) -> None:
    def says(save_ctx: Any, tensor: Tensor) -> None:
        import sys

        print("one", len(tensor))
        print("two", file=sys.stderr)
        print("three")

    model.forward(PROMPT, probes=[model.probe_points[OUT].probe(says)], logits="none")
    printed = capsys.readouterr()
    assert printed.out == "one 2\nthree\n"
    assert printed.err == "two\n"
    model.run_on_ranks("print(rank, world_size)")
    world = len(model.facts["ranks"])
    lines = sorted(capsys.readouterr().out.splitlines())
    assert lines == [f"[rank {rank}] {rank} {world}" for rank in range(world)]


# -- beside the line of cells --------------------------------------------------------------------


def test_a_line_beside_answers_the_same(model: RemoteModel, plain: Plain) -> None:
    requests = model.requests
    with background.behind():
        assert close(model.forward(PROMPT), plain.logits(PROMPT))
    assert model.requests == requests


def test_a_run_goes_on_while_it_is_looked_at(model: RemoteModel) -> None:
    rows = [list(range(3, 13)) for _ in range(12)]
    run = model.run(rows, [model.probe_points[OUT].probe(count)], batch_tokens=20, blocking=False)
    run.wait(show=False)
    assert run.status.state == "done" and run.status.tokens == 120
    assert model.recordings()[OUT].tokens == 120
    assert [one.id for one in model.runs()] == [run.id]


def count(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.tokens = getattr(save_ctx, "tokens", 0) + tensor.shape[0] * tensor.shape[1]


def test_nothing_of_a_request_is_left_over(model: RemoteModel) -> None:
    model.forward(PROMPT)
    assert model.pending() == []
    with pytest.raises(garcon.BadRequest, match="unfinished or unread"):
        model.result()
    with pytest.raises(garcon.BadRequest, match="No answer"):
        model.result("of-nobody")
