"""Large answers of ranks: written once, by the rank that has them, and nothing left behind."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import garcon_jupyter as garcon
from garcon_backend.lockstep.answers import AnswerFiles, frames
from garcon_jupyter.errors import ServerGone, ServerRestarted
from garcon_jupyter.servers import registry
from garcon_jupyter.wire import transport
from tests.conftest import quiet

SMALL = torch.arange(300, dtype=torch.bfloat16)
LARGE = torch.arange(50_000, dtype=torch.float32)  # 200 kB: more than travels in a message
FLOATS = 1 << 22
BYTES = 4 * FLOATS


def taken(value: Any, lent: AnswerFiles, directory: Path) -> Any:
    """A value as a client of this host gets it."""
    content, buffers = transport.pack(value, directory, find=lent.find)
    lent.hand_on(content["value"].get("files", ()))
    lent.end()
    return transport.unpack(content, buffers, shared=directory)


def test_a_value_goes_on_as_the_file_that_its_rank_wrote(tmp_path: Path) -> None:
    lent = AnswerFiles()
    theirs = lent.opened(frames({"a": LARGE, "b": SMALL}, tmp_path))
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    size = file.stat().st_size
    content, _ = transport.pack([theirs, LARGE * 2], tmp_path, find=lent.find)
    assert content["value"]["files"][0] == str(file)
    (other,) = set(tmp_path.iterdir()) - {file}
    assert other.stat().st_size == LARGE.nbytes and file.stat().st_size == size
    lent.end()
    other.unlink()
    assert list(tmp_path.iterdir()) == []


def test_what_is_done_to_it_on_the_way_is_seen(tmp_path: Path) -> None:
    lent = AnswerFiles()
    theirs = lent.opened(frames([LARGE, LARGE + 1], tmp_path))
    theirs[0] *= 3  # as a merge rule might
    found = taken([*theirs, theirs[0][:10], SMALL], lent, tmp_path)
    assert torch.equal(found[0], LARGE * 3) and torch.equal(found[1], LARGE + 1)
    assert torch.equal(found[2], LARGE[:10] * 3) and torch.equal(found[3], SMALL)
    found[0].zero_()  # each has memory of its own
    assert torch.equal(found[2], LARGE[:10] * 3)
    assert list(tmp_path.iterdir()) == []


def test_a_small_part_of_a_file_does_not_hold_all_of_it(tmp_path: Path) -> None:
    lent = AnswerFiles()
    theirs = lent.opened(frames([torch.zeros(1 << 20), LARGE], tmp_path))
    assert lent.find([memoryview(theirs[1].numpy()).cast("B")]) == [None]
    assert torch.equal(taken(theirs[1], lent, tmp_path), LARGE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value", [SMALL, torch.empty(0, 3), "text"], ids=["small", "empty", "text"]
)
def test_small_answers_need_no_file(tmp_path: Path, value: Any) -> None:
    answer = frames(value, tmp_path)
    assert list(tmp_path.iterdir()) == []
    found = AnswerFiles().opened(answer)
    assert torch.equal(found, value) if isinstance(value, torch.Tensor) else found == value


def test_where_shared_memory_is_full_it_goes_as_between_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    lent = AnswerFiles()
    assert torch.equal(lent.opened(frames(LARGE, tmp_path)), LARGE)
    assert list(tmp_path.iterdir()) == [] and lent.find([memoryview(b"x")]) == [None]


# -- real ranks ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stages(llama_path: Path) -> Iterator[garcon.RemoteModel]:
    """The small Llama over two stages."""
    server = garcon.launch(llama_path, name="lent", pp=2, progress=quiet)
    model = garcon.connect(server.name)
    yield model
    model.shutdown(force=True)


def files(model: garcon.RemoteModel) -> list[Path]:
    """What lies in shared memory for its server."""
    return list(Path(model.facts["shared"]).iterdir())


def fill(count: int) -> Callable[[Any, torch.Tensor], None]:
    def probe(save_ctx: Any, tensor: torch.Tensor) -> None:
        save_ctx.value = torch.arange(count, dtype=torch.float32) + float(tensor.shape[1])

    return probe


def written(model: garcon.RemoteModel) -> list[int]:
    """Bytes that each rank has written so far."""
    ranks = model.facts["ranks"]
    return [psutil.Process(rank["pid"]).io_counters().write_chars for rank in ranks]


@pytest.mark.processes
def test_a_value_of_the_last_stage_is_written_there_and_nowhere_else(
    stages: garcon.RemoteModel,
) -> None:
    last = stages.probe_points[f"layers.{stages.catalog.n_layers - 1}.resid_post"]
    stages.forward([[5, 6]], probes=[last.probe(fill(FLOATS))], logits="none")
    recording = stages.recordings()[last.name]
    before = written(stages)
    found = recording.handle("value").fetch()
    first, second = (now - then for now, then in zip(written(stages), before, strict=True))
    assert torch.equal(found, torch.arange(FLOATS, dtype=torch.float32) + 2)
    assert second >= BYTES and first < BYTES / 10
    assert files(stages) == []
    part = recording.handle("value")[-5:].fetch()
    assert part.tolist() == [float(n + 2) for n in range(FLOATS - 5, FLOATS)]


@pytest.mark.processes
def test_values_of_several_stages_come_at_once(stages: garcon.RemoteModel) -> None:
    names = [f"layers.{layer}.resid_post" for layer in range(stages.catalog.n_layers)]
    probes = [
        stages.probe_points[name].probe(fill((1 << 16) + number))
        for number, name in enumerate(names)
    ]
    stages.forward([[5, 6, 7]], probes=probes, logits="none")
    recordings = stages.recordings()
    found = stages.fetch(*(recordings[name].handle("value") for name in names))
    for number, value in enumerate(found):
        assert torch.equal(value, torch.arange((1 << 16) + number, dtype=torch.float32) + 3)
    half = stages.fetch(*(recordings[name].handle("value") for name in names), dtype=torch.float16)
    assert all(torch.equal(one, other.half()) for one, other in zip(half, found, strict=True))
    assert files(stages) == []


@pytest.mark.processes
def test_a_client_that_maps_nothing_gets_it_too(stages: garcon.RemoteModel) -> None:
    """As one of another host."""
    point = stages.probe_points[f"layers.{stages.catalog.n_layers - 1}.resid_post"]
    stages.forward([[5]], probes=[point.probe(fill(FLOATS))], logits="none")
    elsewhere = garcon.connect(stages.server.name, session="elsewhere")
    try:
        elsewhere._channel.same_host = False
        elsewhere.forward([[5]], probes=[point.probe(fill(FLOATS))], logits="none")
        value = elsewhere.recordings()[point.name].value
        assert torch.equal(value, torch.arange(FLOATS, dtype=torch.float32) + 1)
    finally:
        elsewhere.close()
    assert files(stages) == []


def twice_the_first(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0].mul_(2)


@pytest.mark.parametrize("merge", ["cat", "sum", "own"])
def test_shards_are_put_together(rmodel_tp2: garcon.RemoteModel, merge: str) -> None:
    def keep(save_ctx: Any, tensor: torch.Tensor) -> None:
        save_ctx.value = tensor.repeat(1, 1000, 1)

    point = rmodel_tp2.probe_points["layers.1.mlp.post_activation"]
    rule: Any = twice_the_first if merge == "own" else merge
    probes = [
        point.probe(keep, name="whole"),
        point.probe(keep, name="parts", sharded=True, merge=rule),
    ]
    rmodel_tp2.forward([[5, 6, 7]], probes=probes, logits="none")
    found = rmodel_tp2.recordings()
    whole, value = found[point.name, "whole"].value, found[point.name, "parts"].value
    left, right = whole.chunk(2, -1)
    expected = {"cat": whole, "sum": left + right, "own": 2 * left}[merge]
    assert value.nbytes > transport.INLINE_LIMIT and torch.allclose(value, expected)
    assert files(rmodel_tp2) == []


def test_copies_of_a_replicated_value_travel_once(rmodel_tp2: garcon.RemoteModel) -> None:
    def keep(save_ctx: Any, tensor: torch.Tensor) -> None:
        save_ctx.value = tensor.repeat(1, 5000, 1)

    point = rmodel_tp2.probe_points["layers.1.resid_post"]
    rmodel_tp2.forward([[5, 6]], probes=[point.probe(keep, sharded=True)], logits="none")
    handle = rmodel_tp2.recordings()[point.name].handle("value")
    added = []
    for _ in range(3):  # backups of what was saved are written meanwhile, once
        before = written(rmodel_tp2)
        value = handle.fetch()
        added.append(sum(written(rmodel_tp2)) - sum(before))
    assert value.shape == (1, 10000, rmodel_tp2.catalog.sizes["D"])
    assert value.nbytes <= min(added) < 1.5 * value.nbytes


def test_a_rank_that_is_killed_while_it_writes(stages: garcon.RemoteModel) -> None:
    point = stages.probe_points[f"layers.{stages.catalog.n_layers - 1}.resid_post"]
    stages.forward([[5]], probes=[point.probe(fill(1 << 26))], logits="none")
    handle = stages.recordings()[point.name].handle("value")
    pid = registry.find("lent").facts["ranks"][1]["pid"]
    over = threading.Event()

    def kill_when_it_writes() -> None:
        while not over.is_set():
            if files(stages):
                os.kill(pid, signal.SIGKILL)
                return

    thread = threading.Thread(target=kill_when_it_writes)
    thread.start()
    with pytest.raises((ServerRestarted, ServerGone)):
        handle.fetch()
    over.set()
    thread.join()
    assert stages.forward([[5]], probes=[], logits="last").shape == (1, 263)  # the next ranks serve
    assert files(stages) == []
