"""Work that nobody sits and waits for: who asks how, how much at a time, and that persons go first."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import recorders
from garcon_jupyter.connection import background
from garcon_jupyter.connection.background import MOMENT, Filling, Pace
from garcon_jupyter.experiments import patching

CLEAN, CORRUPTED = [[0, 40, 41, 42, 99]], [[0, 40, 77, 42, 99]]
CHANGING, BY_HEAD = 4 * 3, 4 * 6
"""Cells of the two sweeps that are computed: of four layers the positions from the first that differs on, and six heads."""


# -- the parts, alone ----------------------------------------------------------------------------


def test_how_a_thread_asks_is_its_own_business() -> None:
    found: list[bool] = []
    with background.behind():
        assert background.is_behind() and background.is_beside()
        thread = threading.Thread(target=lambda: found.append(background.is_beside()))
        thread.start()
        thread.join()
        with background.beside():
            assert background.is_beside() and not background.is_behind()
        assert background.is_behind()
    assert found == [False] and not background.is_beside()
    assert background.answering(background.is_beside)() and not background.is_beside()
    assert background.standing_behind(background.is_behind)()


def test_a_pace_finds_what_fits_into_a_moment() -> None:
    pace, sizes = Pace(1, 100), []
    for _ in range(8):
        sizes.append(pace.size)
        with pace.piece(pace.size):
            background.spend(pace.size * MOMENT / 40)
    assert sizes == [1, 2, 4, 8, 16, 32, 40, 40]
    pace.took(40, 100 * MOMENT)
    assert pace.size == 1  # never less
    for _ in range(20):
        pace.took(pace.size, 0.0)
    assert pace.size == 100  # nor more than that
    background.spend(5.0)  # nobody measures


@pytest.mark.parametrize("begun", [False, True])
def test_what_fills_is_left_off_behind_others_too(begun: bool) -> None:
    asked: list[tuple[str, bool]] = []

    def pieces() -> Generator[int, None, None]:
        try:
            yield 0  # the first, which a cell waits for
            asked.append(("piece", background.is_behind()))
            yield 1
        finally:
            asked.append(("end", background.is_behind()))

    work, shown = pieces(), []
    next(work)
    filling = Filling(work, shown.append)
    if begun:
        next(filling)
    filling.close()
    assert asked == [("piece", True)] * begun + [("end", True)] and shown == [1] * begun


# -- on a server ---------------------------------------------------------------------------------


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell of a sweep in a forward of its own."""
    monkeypatch.setattr(patching, "FIRST_TOKENS", 5)
    monkeypatch.setattr(patching, "TOKENS", 5)


def slow(logits: Tensor) -> Tensor:
    """A metric that takes its time, and writes down on the server when it was run."""
    import time

    builtins.__dict__.setdefault("order", []).append(f"piece of {len(logits)}")
    time.sleep(0.03 * len(logits))
    return logits[:, -1, 17] - logits[:, -1, 23]


def mine(logits: Tensor) -> Any:
    builtins.__dict__.setdefault("order", []).append("mine")
    return logits[0, -1]


def order(logits: Tensor) -> list[str]:
    """What the server has written down; it forgets it."""
    return builtins.__dict__.pop("order", [])


def asked(model: garcon.RemoteModel) -> list[str]:
    return model.forward(CLEAN, probes=[], logits=order)


@pytest.mark.usefixtures("small_pieces")
def test_what_a_person_runs_goes_before_the_pieces_of_a_picture(
    either: garcon.RemoteModel,
) -> None:
    asked(either)
    other = garcon.connect(either.server.name)
    widget = either.patching(CLEAN, CORRUPTED, metric=slow)
    for number in range(8):
        (either, other)[number % 2].forward(CLEAN, probes=[], logits=mine)
    assert widget.filling  # it is not that there was nothing to wait for
    served = " ".join(asked(either)).split("mine")
    # At most the piece that ran when the request came, and after twice its time the next.
    assert max(part.count("piece") for part in served[1:-1]) <= 1
    assert widget.wait(60).unfinished == "" and not widget.filling
    other.close()


def test_pieces_take_a_moment(rmodel: garcon.RemoteModel) -> None:
    asked(rmodel)
    widget = rmodel.patching(CLEAN, CORRUPTED, metric=slow).wait(60)
    ends, first, *pieces = (int(piece.split()[-1]) for piece in asked(rmodel))
    assert ends == 2  # which each request has beside its cells
    assert first == 2 + CHANGING  # of whose time nothing was known
    assert sum(pieces) == 2 * len(pieces) + BY_HEAD
    assert len(pieces) > 1 and max(pieces) * 0.03 <= MOMENT
    assert widget.values.axes == ("layer", "position")


@pytest.mark.usefixtures("small_pieces")
def test_what_is_stopped_says_so_and_keeps_what_it_has(rmodel: garcon.RemoteModel) -> None:
    import numpy as np

    whole = rmodel.patching(CLEAN, CORRUPTED, metric=slow).wait(60)
    widget = rmodel.patching(CLEAN, CORRUPTED, metric=slow)
    with pytest.raises(garcon.NotFinished, match=r"not finished after 0.01 seconds.*stop\(\)"):
        widget.wait(0.01)
    assert widget.stop().wait(60) is widget
    missing = np.isnan(widget.values.array)
    assert missing.any() and widget.unfinished == "stopped, not finished"
    assert "stopped, not finished" in repr(widget) and "missing" not in repr(whole)
    kept = widget.values.array[~missing]
    assert np.allclose(kept, whole.values.array[~missing], atol=1e-4)
    assert len(rmodel.recordings()) == 0
    widget.selected_row, widget.selected_column = 1, 2  # a click is answered all the same
    assert widget.wait(60).detail and widget.unfinished == "stopped, not finished"


@pytest.mark.usefixtures("small_pieces")
def test_pictures_leave_no_trace_of_their_passes(rmodel: garcon.RemoteModel) -> None:
    rmodel.forward([[5, 6, 7]], probes=[], logits="none")
    tokens, known = rmodel.last_tokens, len(rmodel.tokens_at)
    sent = rmodel.requests
    widget = rmodel.patching(CLEAN, CORRUPTED, (17, 23))
    begun = rmodel.requests
    rmodel.forward([[5, 6, 7]], probes=[], logits="none")
    tokens = rmodel.last_tokens
    widget.wait(60)
    assert rmodel.last_tokens is tokens and len(rmodel.tokens_at) == known
    assert sent < begun and rmodel.requests == begun + 1  # pieces are not counted


@pytest.mark.usefixtures("small_pieces")
def test_a_picture_ends_with_the_connection(llama_server: garcon.Server) -> None:
    model = garcon.connect(llama_server.name)
    widget = model.patching(CLEAN, CORRUPTED, metric=slow)
    model.close()
    assert widget.worker.wait(30) and widget.unfinished == "failed, not finished" and widget.trouble
    with pytest.raises(Exception, match="."):
        widget.wait(1)


def test_what_failed_is_raised_by_who_waits(rmodel: garcon.RemoteModel) -> None:
    def fails(logits: Tensor) -> Tensor:
        if len(logits) > 2:  # more than the two ends
            raise ZeroDivisionError("in a sweep")
        return logits[:, -1, 17] - logits[:, -1, 23]

    widget = rmodel.patching(CLEAN, CORRUPTED, metric=fails)
    with pytest.raises(ZeroDivisionError, match="in a sweep"):
        widget.wait(60)
    assert "failed, not finished" in repr(widget)


def test_a_slow_batch_of_a_run_yields_and_its_numbers_are_those_of_a_whole_one(
    either: garcon.RemoteModel,
) -> None:
    def slowly(save_ctx: Any, tensor: Tensor) -> None:
        import time

        rows = f"{save_ctx.here.step}: {len(tensor)}"
        builtins.__dict__.setdefault("order", []).append(rows)
        time.sleep(0.1 * len(tensor))

    point = either.probe_points["layers.1.mlp.post_activation"]
    data = torch.randint(3, 259, (36, 8), generator=torch.manual_seed(0)).numpy()
    counts = [recorders.Firing(), recorders.Moments(), recorders.TopK(3)]
    either.run(data, [point.probe(r) for r in counts], batch_tokens=96, show=False)
    whole = {r.name: either.recordings()[point.name] for r in counts}
    whole = {name: getattr(recording, name) for name, recording in whole.items()}
    asked(either)
    probes = [point.probe(r) for r in counts] + [point.probe(slowly, name="slowly")]
    run = either.run(data, probes, batch_tokens=96, show=False, blocking=False)
    while (
        run.poll().tokens <= 96
    ):  # the first batch, of whose time nothing was known, and a portion
        pass
    either.forward(CLEAN, probes=[], logits=mine)
    run.wait(show=False)
    served = asked(either)
    assert served[0] == "0: 12" and "mine" in served
    portions = [tuple(map(int, part.split(": "))) for part in served if part != "mine"]
    assert max(rows for step, rows in portions if step) * 0.1 <= 1.0
    assert [sum(r for s, r in portions if s == step) for step in range(3)] == [12, 12, 12]
    assert served.index("mine") < len(served) - 2  # it did not wait for the batch
    for name, before in whole.items():
        after = getattr(either.recordings()[point.name], name)
        assert after.numbers() == before.numbers()
        for key, tensor in before.tensors().items():
            mine_now = after.tensors()[key]
            if tensor.is_floating_point():
                torch.testing.assert_close(mine_now, tensor, equal_nan=True)
            else:
                assert torch.equal(mine_now, tensor), (name, key)
