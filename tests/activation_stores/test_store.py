"""A store is read by rows, slices, documents and batches, and says what is wrong with its files."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter.activation_stores import ActivationStore, from_arrays, open_store
from tests.activation_stores.conftest import ROWS, UNITS


def test_rows_slices_and_documents_are_those_written(
    store: ActivationStore, values: np.ndarray, places: np.ndarray
) -> None:
    assert len(store) == ROWS and len(list(store.path.glob("*.safetensors"))) > 8
    for which in (
        slice(0, 3),
        slice(95, 340),
        slice(990, 2000),
        slice(-5, None),
        slice(0, 900, 97),
    ):
        rows = store[which]
        assert np.array_equal(rows.activations.numpy(), values[which])
        assert np.array_equal(rows.place.numpy(), places[which])
        assert np.array_equal(rows.token.numpy(), (np.arange(ROWS) % 311)[which])
    assert np.array_equal(store[[999, 3, 500]].activations.numpy(), values[[999, 3, 500]])
    assert np.array_equal(store[-1].activations.numpy(), values[-1:])
    for document in (0, 7, 40):
        mine = places >> 32 == document
        rows = store.document(document)
        assert np.array_equal(rows.activations.numpy(), values[mine])
        assert rows.offset.tolist() == list(range(mine.sum()))
    with pytest.raises(garcon.BadRequest, match="document 99"):
        store.document(99)
    with pytest.raises(garcon.BadRequest, match="Row 1000 "):
        store[[1000]]


def test_batches_come_as_torch_numpy_and_arrow(store: ActivationStore, values: np.ndarray) -> None:
    whole = torch.cat([batch.activations for batch in store.batches(64)])
    assert np.array_equal(whole.numpy(), values)
    arrays = [batch.activations for batch in store.batches(64, as_="numpy", drop_last=True)]
    assert len(arrays) == ROWS // 64 and np.array_equal(np.concatenate(arrays), values[:960])
    record = next(store.batches(10, as_="arrow"))
    assert record.num_rows == 10 and record.schema.field("activations").type.list_size == UNITS
    flat = record.column("activations").values.to_numpy()
    assert np.array_equal(flat.reshape(10, UNITS), values[:10])
    with pytest.raises(garcon.BadRequest, match="jax"):
        store.batches(10, as_="jax").__next__()


def test_reading_goes_on_at_a_batch_and_is_shared(
    store: ActivationStore, values: np.ndarray
) -> None:
    later = next(store.batches(64, start=5))
    assert np.array_equal(later.activations.numpy(), values[320:384])
    shares = [[b.place for b in store.batches(64, start=3, share=(i, 3))] for i in range(3)]
    found = torch.cat([place for share in shares for place in share])
    assert sorted(found.tolist()) == store[192:].place.tolist()


def test_a_reader_that_stops_leaves_no_thread(store: ActivationStore) -> None:
    import threading

    batches = store.batches(10)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name == "garcon-batches":
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.processes
def test_a_dataloader_reads_it_with_workers(store: ActivationStore, values: np.ndarray) -> None:
    loader = torch.utils.data.DataLoader(store.dataset(100), batch_size=None, num_workers=2)
    found = list(loader)
    assert len(found) == len(loader) == 10
    order = torch.cat([batch["place"] for batch in found]).argsort()
    got = torch.cat([batch["activations"] for batch in found])[order]
    assert np.array_equal(got.numpy(), values)


def test_it_travels_by_its_path(store: ActivationStore) -> None:
    assert len(pickle.loads(pickle.dumps(store))) == ROWS


@pytest.mark.processes
def test_opening_imports_no_torch(store: ActivationStore) -> None:
    code = (
        "import sys; from garcon_jupyter.activation_stores import open_store; "
        f"s = open_store({str(store.path)!r}); print(next(s.batches(3, as_='numpy')).activations.shape); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"(3, {UNITS})", done.stderr


# -- what is wrong with its files ------------------------------------------------------------------


def files(store: ActivationStore) -> list[Path]:
    return sorted(store.path.glob("*.safetensors"))


@pytest.mark.parametrize("at", [0, 9, 300, 2000, -1])
def test_a_flipped_byte_is_named(store: ActivationStore, at: int) -> None:
    store.verify()
    file = files(store)[2]
    content = bytearray(file.read_bytes())
    content[at] ^= 4
    file.write_bytes(content)
    with pytest.raises(garcon.BadData, match=file.name):
        open_store(store.path).verify()


def test_a_short_a_missing_and_a_swapped_file_are_named_on_opening(store: ActivationStore) -> None:
    one, other = files(store)[1:3]
    whole = one.read_bytes()
    one.write_bytes(whole[:-1])
    with pytest.raises(
        garcon.BadData, match=rf"{one.name} .*{len(whole) - 1:,} bytes of {len(whole):,}"
    ):
        open_store(store.path)
    one.unlink()
    with pytest.raises(garcon.BadData, match=one.name):
        open_store(store.path)
    one.write_bytes(other.read_bytes())
    other.write_bytes(whole)
    with pytest.raises(garcon.BadData, match=f"{one.name}.*{other.name}"):
        open_store(store.path)


def test_the_same_file_of_another_store_is_seen_by_its_checksum(
    store: ActivationStore, values: np.ndarray, tmp_path: Path
) -> None:
    beside = from_arrays(tmp_path / "b", values + 1, point="a.point", file_bytes=6000)
    files(beside)[4].replace(files(store)[4])
    with pytest.raises(garcon.BadData, match=r"00004.*checksum"):
        open_store(store.path).verify()


def test_a_damaged_manifest_and_a_damaged_journal_are_named(store: ActivationStore) -> None:
    manifest = store.path / "store.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"units": 24', '"units": 42'))
    with pytest.raises(garcon.BadData, match=r"store\.json.*checksum"):
        open_store(store.path)
    manifest.write_text(json.dumps([1]))
    with pytest.raises(garcon.BadData, match=r"store\.json"):
        open_store(store.path)
    manifest.write_text(text)
    (journal,) = store.path.glob("*.jsonl")
    lines = journal.read_text()
    journal.write_text(lines.replace('"rows":', '"Rows":', 1))
    with pytest.raises(garcon.BadData, match=r"a\.point\.jsonl.*line 2"):
        open_store(store.path)
    journal.write_text("".join(lines.splitlines(keepends=True)[:4]))
    with pytest.raises(garcon.BadData, match="not complete"):
        open_store(store.path)
    part = open_store(store.path, partial=True)
    assert 0 < len(part) < ROWS


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(garcon.BadData, match=r"no store"):
        open_store(tmp_path)
    (tmp_path / "something").touch()
    with pytest.raises(garcon.BadData, match="something"):
        from_arrays(tmp_path, np.zeros((3, 4), np.float16))


def test_rows_that_are_expected_are_read_as_ever(
    store: ActivationStore, values: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    true = os.posix_fadvise

    def noted(file: int, at: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        assert at + length <= os.fstat(file).st_size
        asked.append((file, length))
        true(file, at, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", noted)
    store.expect(80, 150)  # over several files
    row = store.point_rows().layout.row_bytes
    assert sum(length for _, length in asked) == 150 * row and len({f for f, _ in asked}) > 1
    assert np.array_equal(store.read(80, 150, "numpy").activations, values[80:230])
    asked.clear()
    store.expect(len(store) - 10, 500)
    assert sum(length for _, length in asked) == 10 * row
    asked.clear()
    store.expect(len(store) + 5, 10)
    assert not asked
