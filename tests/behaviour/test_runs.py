"""Runs: data streamed past probes on a real server, whoever comes, goes or dies meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import recorders
from garcon_jupyter.client.run import ask
from garcon_jupyter.connection import channel
from garcon_jupyter.recorders import State, alone, seen
from garcon_jupyter.servers import control
from tests.conftest import quiet
from tests.oracle import close

MLP = "layers.1.mlp.post_activation"
ROWS = np.random.default_rng(0).integers(3, 263, size=(40, 12))
TEXTS = [f"Text number {n} says {'so ' * (n % 7)}and ends." for n in range(60)]
LONG = np.random.default_rng(1).integers(3, 263, size=(4000, 16))
"""More than any test waits for."""


def keep(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.value = tensor


def same(one: State, other: State) -> bool:
    """To the last bit."""
    pairs = zip(one.tensors().values(), other.tensors().values(), strict=True)
    return one.numbers() == other.numbers() and all(
        torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in pairs
    )


def wait_until(true: Callable[[], Any], seconds: float = 100.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


def test_a_run_is_one_pass_over_the_data(either: garcon.RemoteModel) -> None:
    """Against the recorder on all values at once."""
    garcon.ship(__import__(__name__, fromlist=["_"]))
    point = either.probe_points[MLP]
    either.forward(ROWS, [point.probe(keep, name="whole")], logits="none")
    value = either.recordings()[MLP, "whole"].value
    observed = seen(value, alone(torch.from_numpy(ROWS)))
    for batch_tokens in (12, 50, 480):
        run = either.run(
            ROWS, [point.probe(recorders.TopK(4)), point.probe(recorders.Moments())], batch_tokens
        )
        found = run.recordings()[MLP]
        assert run.status.state == "done" and run.status.tokens == ROWS.size
        assert run.status.batches == -(-40 // max(1, batch_tokens // 12))
        wanted = recorders.TopK(4).update(None, observed)
        assert torch.equal(found.topk.places, wanted.places)
        assert close(found.topk.values, wanted.values)
        assert close(found.moments.mean, recorders.Moments().update(None, observed).mean)
        # A second run begins anew: the first would count twice.
        assert found.moments.tokens_seen == ROWS.size


def test_padding_is_not_recorded(rmodel: garcon.RemoteModel) -> None:
    probe = rmodel.probe_points[MLP].probe(recorders.TopK(2))
    run = rmodel.run(TEXTS, [probe], packed=False, batch_tokens=500, show=False)
    found = run.recordings()[MLP].topk
    lengths = [len(rmodel.encode(text).ids[0]) for text in TEXTS]
    assert found.tokens_seen == sum(lengths) == run.status.tokens
    for document, offset in zip(
        found.documents[0].tolist(), found.offsets[0].tolist(), strict=True
    ):
        assert 0 <= offset < lengths[document]
    # The largest value of a unit is where it says: alone, the text has it there.
    document, offset = int(found.documents[5, 0]), int(found.offsets[5, 0])
    rmodel.forward(TEXTS[document], [rmodel.probe_points[MLP].probe(keep, name="one")])
    value = rmodel.recordings()[MLP, "one"].value[0, offset, 5]
    assert abs(float(value - found.values[5, 0])) < 1e-5


def test_probes_know_where_in_the_data_they_are(rmodel: garcon.RemoteModel) -> None:
    def note(save_ctx: Any, tensor: Tensor) -> None:
        notes = getattr(save_ctx, "notes", [])
        here = save_ctx.here
        notes.append((here.step, here.document.tolist(), here.offset.tolist()))
        save_ctx.notes = notes

    probe = rmodel.probe_points[MLP].probe(note)
    rmodel.run([[5, 6, 7], [8], [9, 10]], [probe], batch_tokens=4, length=3, packed=True)
    assert rmodel.recordings()[MLP].notes == [
        (0, [[0, 0, 0]], [[0, 1, 2]]),
        (1, [[1, 2, 2]], [[0, 0, 1]]),
    ]


def test_a_run_goes_on_from_what_was_recorded_if_asked_to(rmodel: garcon.RemoteModel) -> None:
    probe = rmodel.probe_points[MLP].probe(recorders.Firing())
    rmodel.run(ROWS[:20], [probe])
    rmodel.run(ROWS[20:], [probe], fresh=False)
    together = rmodel.recordings()[MLP].firing
    rmodel.run(ROWS, [probe])
    assert torch.equal(together.fired, rmodel.recordings()[MLP].firing.fired)
    assert together.tokens_seen == ROWS.size


def test_states_of_two_servers_are_merged_to_that_of_one_run(
    rmodel: garcon.RemoteModel, rmodel_tp2: garcon.RemoteModel, tmp_path: Path
) -> None:
    """Each saved to disk by whoever ran it; documents are numbered by their position in all of the data."""
    chosen: list[recorders.Recorder[Any]] = [
        recorders.TopK(5, before=2, after=1),
        recorders.Reservoir(4),
        recorders.EqualWidthReservoir(-0.1, 0.1, 3, 2),
        recorders.Moments(),
        recorders.Firing(),
        recorders.Covariance(),
        recorders.Coactivation(),
        recorders.TokenStatistics(),
        recorders.Sketch(16),
    ]

    data = (
        ROWS.copy()
    )  # no two rows begin alike: layouts would order equal values by their last bits
    data[:, 0] = np.random.default_rng(2).permutation(260)[: len(data)] + 3

    def saved(model: garcon.RemoteModel, rows: slice, first: int) -> dict[str, State]:
        probes = [model.probe_points[MLP].probe(recorder) for recorder in chosen]
        model.run(data[rows], probes, batch_tokens=50, first_document=first, show=False)
        found = {}
        for recorder in chosen:
            file = tmp_path / f"{recorder.name}-{rows.start}-{first}"
            recorders.save(file, getattr(model.recordings()[MLP], recorder.name))
            found[recorder.name] = recorders.load(file)
        return found

    whole = saved(rmodel, slice(0, None), 0)
    late, early = saved(rmodel_tp2, slice(17, None), 17), saved(rmodel, slice(0, 17), 0)
    for recorder in chosen:
        merged = recorder.merge([late[recorder.name], early[recorder.name]])
        assert merged.numbers() == whole[recorder.name].numbers(), recorder
        for name, tensor in whole[recorder.name].tensors().items():
            mine = merged.tensors()[name]
            if name == "scores" and recorder.name == "topk":
                continue  # the values once more, as integers
            if tensor.is_floating_point():
                assert close(mine.nan_to_num(0, 9, -9), tensor.nan_to_num(0, 9, -9), 1e-4), name
            else:
                assert torch.equal(mine, tensor), (recorder, name)
    # Both numbered from 0, documents of one would pass for those of the other.
    wrong = recorders.TopK(5).merge([saved(rmodel, slice(17, None), 0)["topk"], early["topk"]])
    assert not torch.equal(wrong.places, whole["topk"].places)
    with pytest.raises(garcon.BadRequest, match="first_document=-1 is no number"):
        rmodel.run(ROWS, first_document=-1)


# -- while it runs -----------------------------------------------------------------------------------


def test_others_have_their_turns_and_recordings_can_be_read(rmodel: garcon.RemoteModel) -> None:
    probe = rmodel.probe_points[MLP].probe(recorders.Firing())
    run = rmodel.run(LONG, [probe], batch_tokens=16, blocking=False)
    other = garcon.connect("tiny")
    other.forward([[0, 5, 6]], probes=[])
    early = run.recordings()[MLP].firing.tokens_seen
    wait_until(lambda: run.poll().tokens > early)
    assert 0 < early < run.recordings()[MLP].firing.tokens_seen
    status = run.pause()
    wait_until(lambda: run.poll().state == "paused")
    stood = run.status.tokens
    other.forward([[0, 5, 6]], probes=[])
    assert run.poll().tokens == stood and 0 < run.status.fraction < 1 and run.status.rate > 0
    assert run.recordings()[MLP].firing.tokens_seen == stood >= status.tokens
    run.resume()
    wait_until(lambda: run.poll().tokens > stood)
    run.cancel()
    wait_until(lambda: run.poll().over)
    assert run.status.state == "cancelled" and run.poll().tokens < LONG.size
    assert "cancelled" in repr(run)
    with pytest.raises(garcon.Interrupted):
        run.wait(show=False)
    other.close()


def test_progress_counts_what_the_model_has_done(either: garcon.RemoteModel) -> None:
    """Each batch takes a while: the wrong answer counts the one that runs, and what was read ahead."""

    def wait(save_ctx: Any, tensor: Tensor) -> None:
        import time

        time.sleep(0.3)

    rows, each = ROWS[:10], ROWS.shape[1] * 2
    probe = either.probe_points[MLP].probe(wait)
    run = either.run(rows, [probe], batch_tokens=each, blocking=False)
    seen = [run.poll()]
    while not run.poll().over:
        seen.append(run.status)
        time.sleep(0.02)
    assert run.status.state == "done" and run.status.fraction == 1.0
    first = [status for status in seen if status.batches == 0]
    assert first, "the first batch took no time"
    for status in first:
        assert (status.tokens, status.documents, status.fraction, status.seconds) == (0, 0, 0.0, 0)
        assert status.left is None and "left" not in repr(run.__class__(either, status))
    for status in seen[len(first) :]:
        assert status.tokens // each == status.batches and status.documents == status.batches * 2
        assert status.fraction == pytest.approx(status.tokens / rows.size)
        assert status.seconds >= 0.3 * status.batches
        assert status.left is not None and status.left >= 0.3 * (5 - status.batches)
    assert {status.batches for status in seen} >= {0, 1, 2, 3, 4}


def test_progress_goes_on_within_a_batch_that_takes_long(rmodel: garcon.RemoteModel) -> None:
    """Such a batch is run in portions: the wrong answer stands still until it is over, or counts all of it."""

    def wait(save_ctx: Any, tensor: Tensor) -> None:
        import time

        time.sleep(0.2 * len(tensor))

    rows = ROWS[:20]
    probe = rmodel.probe_points[MLP].probe(wait)
    run = rmodel.run(rows, [probe], batch_tokens=rows.size // 2, blocking=False)
    seen = {}
    while not run.poll().over:
        seen[run.status.tokens] = run.status.fraction
        time.sleep(0.02)
    assert any(tokens % (rows.size // 2) for tokens in seen), "no batch was cut"
    for tokens, fraction in seen.items():
        assert fraction == pytest.approx(tokens / rows.size)


def test_a_widget_follows_a_run_and_steers_it(rmodel: garcon.RemoteModel) -> None:
    point = rmodel.probe_points[MLP]
    probes = [point.probe(recorders.Firing())]
    most = LONG.size // 2
    run = rmodel.run(LONG, probes, batch_tokens=16, most_tokens=most, blocking=False)
    widget = run.show(lambda recordings: recordings[MLP].firing.tokens_seen)
    wait_until(lambda: run.poll().tokens)

    def after(word: str) -> dict[str, Any]:
        widget._hear(widget, {"do": word}, [])
        assert widget.worker.wait()
        return widget.state

    assert 0 < after("look")["fraction"] < 1 and widget.drawn.startswith("<pre>")
    after("pause")
    wait_until(lambda: after("look")["state"] == "paused")
    stood = run.poll().tokens
    # Of the tokens that were asked for; what is read ahead is none of it.
    assert widget.state["fraction"] == pytest.approx(stood / most)
    assert widget.drawn == f"<pre>{stood}</pre>" and "tokens" in widget.summary
    after("resume")
    wait_until(lambda: run.poll().tokens > stood)
    after("cancel")
    wait_until(lambda: after("look")["over"])
    assert widget.state["state"] == "cancelled" and "cancelled" in widget.still()
    widget.close()


def test_an_interrupt_cancels_it_between_two_batches(rmodel: garcon.RemoteModel) -> None:
    probe = rmodel.probe_points[MLP].probe(recorders.Firing())

    def interrupt() -> None:
        watcher = garcon.connect("tiny")
        wait_until(lambda: (watcher.status()["running"] or {}).get("kind") == "run")
        watcher.close()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(garcon.Interrupted, match="was cancelled after"):
        rmodel.run(LONG, [probe], batch_tokens=16, show=False)
    thread.join()
    (run,) = rmodel.runs()
    assert rmodel.recordings()[MLP].firing.tokens_seen == run.status.tokens < LONG.size


def test_a_notebook_finds_its_run_again(llama_server: garcon.Server) -> None:
    first = garcon.connect("tiny", session="streaming")
    probe = first.probe_points[MLP].probe(recorders.Firing())
    first.run(LONG[:400], [probe], batch_tokens=64, blocking=False)
    first.close()
    again = garcon.connect("tiny", session="streaming")
    (run,) = again.runs()
    assert run.wait(show=False).status.tokens == LONG[:400].size
    assert again.recordings()[MLP].firing.tokens_seen == LONG[:400].size
    other = garcon.connect("tiny")
    assert other.runs() == []
    with pytest.raises(garcon.UnknownName, match="no run"):
        ask(other, "poll", run=run.id)
    again.close(), other.close()


def test_what_probes_print_is_shown(
    rmodel: garcon.RemoteModel, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(save_ctx: Any, tensor: Tensor) -> None:
        print("batch", save_ctx.here.step)

    rmodel.run(ROWS[:6], [rmodel.probe_points[MLP].probe(say)], batch_tokens=24)
    assert capsys.readouterr().out == "batch 0\nbatch 1\nbatch 2\n"


# -- what goes wrong ---------------------------------------------------------------------------------


def test_a_run_whose_data_take_long_is_begun_once(
    rmodel: garcon.RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked again where no answer comes are questions, and no work."""
    monkeypatch.setattr(channel, "AGAIN", 0.05)
    before = len(rmodel.runs())
    probe = rmodel.probe_points["layers.0.mlp.out"].probe(recorders.Moments())
    data = torch.ones(60_000, 16, dtype=torch.long)
    run = rmodel.run(data, [probe], most_tokens=1000, show=False)
    assert run.status.state == "done" and len(rmodel.runs()) == before + 1


def test_a_bad_row_is_named_and_what_was_finished_is_kept(
    rmodel: garcon.RemoteModel, tmp_path: Path
) -> None:
    file = tmp_path / "some.jsonl"
    lines = ['{"text": "a text of some length"}'] * 200
    lines[150] = '{"text": 7'
    file.write_text("\n".join(lines))
    probe = rmodel.probe_points[MLP].probe(recorders.Firing())
    with pytest.raises(garcon.BadData, match="Line 151 of some.jsonl is no JSON"):
        rmodel.run(file, [probe], length=16, batch_tokens=64, show=False)
    (run,) = rmodel.runs()
    done = rmodel.recordings()[MLP].firing.tokens_seen
    each = len(rmodel.encode("a text of some length").ids[0]) + 1
    assert done == run.status.tokens == 150 * each
    run = rmodel.run(file, [probe], length=16, batch_tokens=64, skip=True, show=False)
    assert run.status.tokens == 199 * each and run.status.skipped == 1


def test_what_cannot_begin_is_said_at_once(rmodel: garcon.RemoteModel, tmp_path: Path) -> None:
    for data in (3.5, [[0.5]], [], [["a"]]):
        with pytest.raises(garcon.BadData):
            rmodel.run(data)
    with pytest.raises(garcon.BadData, match=r"There is no .*missing.txt"):
        rmodel.run(tmp_path / "missing.txt")
    with pytest.raises(garcon.BadRequest, match="at most 128"):
        rmodel.run(TEXTS, length=500)
    with pytest.raises(garcon.BadProbe):
        rmodel.run(TEXTS, ["no probe"])
    (tmp_path / "file").write_text("x")
    with pytest.raises(garcon.BadData, match="could not be written"):
        rmodel.run(TEXTS, checkpoint=tmp_path / "file" / "below")
    assert rmodel.runs() == []


def test_a_probe_that_raises_ends_the_run(rmodel: garcon.RemoteModel) -> None:
    def fail(save_ctx: Any, tensor: Tensor) -> None:
        if save_ctx.here.step == 2:
            raise ZeroDivisionError("third batch")

    point = rmodel.probe_points[MLP]
    with pytest.raises(ZeroDivisionError, match="third batch"):
        rmodel.run(ROWS, [point.probe(fail)], batch_tokens=24, show=False)
    rmodel.forward([[0, 5]], probes=[])
    (run,) = rmodel.runs()
    assert run.status.state == "failed" and run.status.batches == 2


def test_more_slots_than_data(rmodel: garcon.RemoteModel) -> None:
    rmodel.run([[5, 6, 7]], [rmodel.probe_points[MLP].probe(recorders.TopK(10))])
    topk = rmodel.recordings()[MLP].topk
    assert topk.filled.sum(1).tolist() == [3] * 80 and topk.values[:, 3:].isnan().all()


# -- lost ranks, and servers that ended --------------------------------------------------------------


@pytest.fixture
def own_server(llama_path: Path) -> Iterator[Callable[..., garcon.RemoteModel]]:
    """Starts a server of the test's own and connects to it."""
    begun: list[garcon.Server] = []

    def start(**layout: int) -> garcon.RemoteModel:
        server = garcon.launch(llama_path, name="mortal", progress=quiet, **layout)
        begun.append(server)
        return garcon.connect(server.name, session="me")

    yield start
    for server in begun:
        control.kill(server)


def everything(model: garcon.RemoteModel) -> list[garcon.Probe]:
    points = model.probe_points["layers.*.mlp.post_activation"]
    chosen = [
        recorders.TopK(5, before=2, after=1),
        recorders.Reservoir(4),
        recorders.Moments(),
        recorders.Covariance(),
    ]
    return [probe for recorder in chosen for probe in points.probes(recorder)]


def states(model: garcon.RemoteModel) -> dict[tuple[str, str], State]:
    recordings = model.recordings()
    names = ("topk", "reservoir", "moments", "covariance")
    return {(str(p), name): getattr(recordings[p], name) for p in recordings for name in names}


def test_after_a_lost_rank_the_result_is_the_same(
    own_server: Callable[..., garcon.RemoteModel],
) -> None:
    model = own_server(tp=2)
    data = LONG[:240]
    model.run(data, everything(model), batch_tokens=64, every=3600, show=False)
    undisturbed = states(model)
    for lost in (1, 0):
        run = model.run(data, everything(model), batch_tokens=64, every=0, blocking=False)
        wait_until(lambda run=run: run.poll().checkpointed)
        assert not run.status.over
        launched = model.facts["launched"]
        os.kill(model.facts["ranks"][lost]["pid"], signal.SIGKILL)
        run.wait(show=False)
        assert model.facts["launched"] > launched
        found = states(model)
        assert set(found) == set(undisturbed) and len(found) == 16
        assert all(same(found[key], undisturbed[key]) for key in found)
        assert found[MLP, "topk"].tokens_seen == data.size


def test_a_run_goes_on_on_another_server(
    own_server: Callable[..., garcon.RemoteModel], tmp_path: Path
) -> None:
    model = own_server()
    data, where = LONG[:400], tmp_path / "checkpoints"
    model.run(data, everything(model), batch_tokens=64, show=False)
    whole = states(model)
    run = model.run(
        data, everything(model), batch_tokens=64, checkpoint=where, every=0, blocking=False
    )
    wait_until(lambda: (run.poll().checkpointed or 0) > 3)
    model.shutdown(force=True)
    model = own_server()
    run = model.run(resume=where, show=False)
    assert run.status.tokens == data.size
    found = states(model)
    assert all(same(found[key], whole[key]) for key in whole)
    with pytest.raises(garcon.BadData, match="no part of a checkpoint"):
        model.run(resume=tmp_path)


def test_a_disk_that_fills_costs_the_checkpoint_only(
    own_server: Callable[..., garcon.RemoteModel], tmp_path: Path
) -> None:
    model = own_server()
    model.run_on_ranks(
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))"
    )
    run = model.run(
        ROWS, everything(model), batch_tokens=64, every=0, checkpoint=tmp_path / "c", show=False
    )
    assert run.status.state == "done" and run.status.tokens == ROWS.size
    assert "could not be written: File too large" in run.status.lost
    assert run.status.checkpointed is None and not list((tmp_path / "c").glob("after-*"))
