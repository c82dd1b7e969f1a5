"""Activations are stored by the ranks that have them: every row once, whatever is killed, and in one order under any sharding."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import RemoteModel
from garcon_jupyter.activation_stores import ActivationStore, open_store
from garcon_jupyter.client.storing import CHECKPOINTS
from garcon_jupyter.recorders.storing import StoreRecorder
from garcon_jupyter.servers import control, registry
from tests.oracle import Plain, close

RESID, NEURONS, QUERIES = (
    "layers.1.resid_post",
    "layers.2.mlp.post_activation",
    "layers.3.attn.q",
)

DATA = [list(range(3, 10 + 3 * (n % 7))) for n in range(25)]
"""Rows of unequal length, so that batches are padded and replicas have unequally many."""

PLACES = [
    document << 32 | offset for document, row in enumerate(DATA) for offset in range(len(row))
]
TOKENS = [token for row in DATA for token in row]

OPTIONS: dict[str, Any] = {"batch_tokens": 70, "dtype": "float32", "show": False, "every": 0}


def made(model: RemoteModel, points: Any, path: Path, **options: Any) -> ActivationStore:
    store = model.store(points, DATA, path, **{**OPTIONS, "file_bytes": 9000, **options})
    assert store is not None
    return store


@pytest.fixture(scope="module")
def expected(plain: Plain) -> dict[str, Tensor]:
    """The rows of plain transformers, document by document."""
    return {
        RESID: torch.cat([plain.output("model.layers.1", [row])[0] for row in DATA]),
        NEURONS: torch.cat([plain.neurons(2, [row])[0] for row in DATA]),
    }


def check(store: ActivationStore, expected: dict[str, Tensor]) -> None:
    """Every row is there once, in the order of the data, with its values."""
    store.verify()
    rows = store[:]
    assert rows.place.tolist() == PLACES and rows.token.tolist() == TOKENS
    found = rows.activations if isinstance(rows.activations, dict) else {RESID: rows.activations}
    for point, values in found.items():
        if point in expected:
            assert close(values, expected[point], 1e-4), point
            assert not close(values, expected[point].flip(0), 1e-4)


def test_rows_are_those_of_plain_transformers(
    rmodel: RemoteModel, expected: dict[str, Tensor], tmp_path: Path
) -> None:
    store = made(rmodel, [RESID, NEURONS, QUERIES], tmp_path / "acts")
    check(store, expected)
    assert len(list(store.path.glob(f"{RESID}-*.safetensors"))) > 5
    assert store[:4].activations[QUERIES].dim() == 3  # [rows, heads, units of a head]
    assert store.document(7).activations[RESID].shape[0] == len(DATA[7])
    assert not (store.path / CHECKPOINTS).exists()
    again = made(rmodel, [RESID, NEURONS, QUERIES], tmp_path / "acts")  # complete: nothing runs
    assert len(again) == len(store) and len(rmodel.runs()) == 1


def test_float32_is_stored_as_float16_unless_asked(
    rmodel: RemoteModel, expected: dict[str, Tensor], tmp_path: Path
) -> None:
    store = made(rmodel, RESID, tmp_path / "acts", dtype=None)
    assert store[:].activations.dtype == torch.float16
    assert torch.equal(store[:].activations, expected[RESID].half()) or close(
        store[:].activations.float(), expected[RESID], 2e-3
    )
    assert 0 < store.lost[RESID] < 1e-3


@pytest.mark.processes
def test_and_by_shards_of_the_units(
    rmodel_tp2: RemoteModel, expected: dict[str, Tensor], tmp_path: Path
) -> None:
    store = made(rmodel_tp2, [RESID, NEURONS], tmp_path / "acts")
    check(store, expected)
    assert list(store.path.glob(f"{NEURONS}.r0t1-*.safetensors"))  # its ranks wrote one half each
    assert not list(store.path.glob(f"{RESID}.*-*.safetensors"))  # what both have was written once
    mixed = garcon.shuffle(store, tmp_path / "mixed", seed=1)
    order = mixed[:].place.argsort()
    assert torch.equal(mixed[:].activations[NEURONS][order], store[:].activations[NEURONS])


@pytest.fixture(scope="module")
def many(llama_path: Path) -> Iterator[RemoteModel]:
    """The small Llama over two stages of two replicas."""
    server = garcon.launch(llama_path, "stored-many", pp=2, dp=2, progress=lambda line: None)
    model = garcon.connect(server.name)
    yield model
    model.close()
    control.stop(server)


@pytest.mark.processes
def test_and_by_stages_and_replicas(
    many: RemoteModel, expected: dict[str, Tensor], tmp_path: Path
) -> None:
    store = made(many, [RESID, NEURONS], tmp_path / "acts")
    check(store, expected)
    assert list(store.path.glob("*.r1t0-*.safetensors"))  # the second replica wrote its own rows


# -- gone on with ----------------------------------------------------------------------------------


@pytest.mark.processes
def test_a_killed_rank_and_a_killed_server_cost_no_row_and_double_none(
    llama_path: Path, expected: dict[str, Tensor], tmp_path: Path
) -> None:
    directory = tmp_path / "acts"
    position = directory / CHECKPOINTS / "position"

    def store_in(model: RemoteModel, found: list[Any]) -> None:
        try:
            found.append(made(model, RESID, directory, batch_tokens=20))
        except garcon.GarconError as error:
            found.append(error)

    def kill(pids: list[int], model: RemoteModel) -> list[Any]:
        had = position.stat().st_mtime_ns if position.exists() else 0
        found: list[Any] = []
        thread = threading.Thread(target=store_in, args=(model, found))
        thread.start()
        limit = time.monotonic() + 60
        while not position.exists() or position.stat().st_mtime_ns == had:
            assert time.monotonic() < limit and thread.is_alive(), found
            time.sleep(0.002)
        for pid in pids:
            psutil.Process(pid).send_signal(signal.SIGKILL)
        thread.join(120)
        return found

    server = garcon.launch(llama_path, "stored-killed", progress=lambda line: None)
    model = garcon.connect(server.name)
    supervisor = psutil.Process(server.facts["supervisor"])
    everyone = [supervisor.pid, *(child.pid for child in supervisor.children(recursive=True))]
    (lost,) = kill(everyone, model)
    assert isinstance(lost, (garcon.ServerGone, garcon.ServerRestarted)), lost
    with pytest.raises(garcon.BadData, match="not complete"):
        open_store(directory)
    server = garcon.launch(llama_path, "stored-killed", progress=lambda line: None)
    model = garcon.connect(server.name)
    (store,) = kill([rank["pid"] for rank in registry.find(server.name).facts["ranks"]], model)
    check(store, expected)  # the server started its ranks anew, and the run went on by itself
    model.close()
    control.stop(registry.find(server.name))


def test_an_interrupt_leaves_what_the_same_call_goes_on_with(
    rmodel: RemoteModel,
    expected: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from garcon_backend.in_process import serving
    from garcon_jupyter.client import storing

    def interrupted(self: Any, run: Any) -> None:
        if run.status.batches > 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(storing, "POLLED", 0)
        patched.setattr(serving, "LOOK", 0.001)  # a look is a batch
        patched.setattr(storing.Storing, "_look", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made(rmodel, RESID, tmp_path / "acts", batch_tokens=20)
    check(made(rmodel, RESID, tmp_path / "acts", batch_tokens=20), expected)


# -- refused ---------------------------------------------------------------------------------------


def test_another_plan_in_the_same_directory_is_refused(rmodel: RemoteModel, tmp_path: Path) -> None:
    made(rmodel, RESID, tmp_path / "acts")
    with pytest.raises(garcon.BadData, match="another points"):
        made(rmodel, NEURONS, tmp_path / "acts")
    with pytest.raises(garcon.BadData, match="batch_tokens.: 70.*batch_tokens.: 80"):
        made(rmodel, RESID, tmp_path / "acts", batch_tokens=80)
    with pytest.raises(garcon.BadData, match="sha256"):
        rmodel.store(RESID, DATA[:3], tmp_path / "acts", **OPTIONS, file_bytes=9000)
    with pytest.raises(garcon.BadData, match="own checkpoint="):
        made(rmodel, RESID, tmp_path / "other", checkpoint="here")


def test_a_disk_without_room_is_refused_with_the_numbers(
    rmodel: RemoteModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    had = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: had._replace(free=50_000))
    tokens = len(TOKENS)
    with pytest.raises(
        garcon.DoesNotFit, match=rf"{tokens} tokens of 204 bytes .* 48\.8 KiB are free"
    ):
        made(rmodel, RESID, tmp_path / "acts")
    assert not rmodel.runs()


def test_data_whose_length_shows_only_as_it_is_read_is_refused_then(
    rmodel: RemoteModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from garcon_jupyter.client import storing

    had = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: had._replace(free=50_000))
    monkeypatch.setattr(storing, "POLLED", 0)
    file = tmp_path / "texts.txt"
    file.write_text("one line of a text that goes on and on\n" * 400)
    with pytest.raises(garcon.DoesNotFit, match=r"% of the data about .*iB are to come"):
        rmodel.store(RESID, file, tmp_path / "acts", show=False, batch_tokens=256)


def test_points_without_a_row_for_each_token_are_refused(
    rmodel: RemoteModel, tmp_path: Path
) -> None:
    with pytest.raises(garcon.BadProbe, match=r"not one value for each token of the data"):
        made(rmodel, "layers.1.attn.pattern", tmp_path / "acts")
    assert not (tmp_path / "acts").exists()


def test_outside_of_a_run_nothing_is_stored(rmodel: RemoteModel, tmp_path: Path) -> None:
    probe = rmodel.probe_points[RESID].probe(StoreRecorder(str(tmp_path / "acts"), {"points": {}}))
    with pytest.raises(garcon.BadRequest, match="while data streams"):
        rmodel.forward(DATA[:1], probes=[probe])


def test_batches_of_the_store_are_what_a_trainer_reads(rmodel: RemoteModel, tmp_path: Path) -> None:
    store = made(rmodel, RESID, tmp_path / "acts")
    mixed = garcon.shuffle(store, tmp_path / "mixed", seed=3)
    loader = torch.utils.data.DataLoader(mixed.dataset(64), batch_size=None)
    rows = torch.cat([batch["activations"] for batch in loader])
    places = np.concatenate([batch["place"].numpy() for batch in loader])
    assert sorted(places.tolist()) == PLACES and places.tolist() != PLACES
    assert torch.equal(rows[places.argsort()], store[:].activations)
