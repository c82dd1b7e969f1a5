"""What SAELens and ``datasets`` read of a store, by ``datasets`` itself."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest

import garcon_jupyter as garcon
from garcon_jupyter.activation_stores import ActivationStore, from_arrays
from tests.activation_stores.conftest import ROWS, UNITS


def test_datasets_reads_rows(store: ActivationStore, values: np.ndarray, tmp_path: Path) -> None:
    path = store.to_datasets(tmp_path / "table")
    table = datasets.load_from_disk(str(path)).with_format("numpy")
    assert np.array_equal(table[:]["activations"].astype(np.float16), values)
    assert np.array_equal(table[:]["document"] << 32 | table[:]["offset"], store[:].place.numpy())
    with pytest.raises(garcon.BadData, match="holds something"):
        store.to_datasets(path)


def test_saelens_reads_contexts_as_it_asks_for_them(
    store: ActivationStore, values: np.ndarray, tmp_path: Path
) -> None:
    path = store.to_saelens(tmp_path / "cached", context=16)
    # What its ActivationsStore.load_cached_activation_dataset does, and checks.
    table = datasets.load_from_disk(str(path))
    table.set_format(type="torch", columns=["a.point", "token_ids"])
    assert table.features["a.point"].shape == (16, UNITS)
    batch = table[2:5]
    assert batch["a.point"].shape == (3, 16, UNITS) and batch["token_ids"].shape == (3, 16)
    assert np.array_equal(batch["a.point"].numpy().reshape(-1, UNITS), values[32:80])
    assert batch["token_ids"].flatten().tolist() == [n % 311 for n in range(32, 80)]
    assert len(table) == ROWS // 16
    with pytest.raises(garcon.BadRequest, match="no context of 5000"):
        store.to_saelens(tmp_path / "other", context=5000)


def test_bfloat16_is_written_as_float32_exactly(tmp_path: Path) -> None:
    bits = np.arange(0, 1 << 15, 7, dtype=np.uint16)[:4640].reshape(-1, 8)
    bits = bits[(bits < 0x7F80).all(1)]
    store = from_arrays(tmp_path / "acts", bits, given="bfloat16")
    table = datasets.load_from_disk(str(store.to_datasets(tmp_path / "table")))
    found = np.asarray(table.with_format("numpy")[:]["activations"], np.float32)
    assert (
        np.array_equal(found.view(np.uint32) >> 16, bits)
        and not (found.view(np.uint32) & 0xFFFF).any()
    )


def test_two_stores_do_not_share_what_datasets_caches(
    store: ActivationStore, values: np.ndarray, tmp_path: Path
) -> None:
    other = from_arrays(tmp_path / "other", values + 1, point="a.point")
    tables = [
        datasets.load_from_disk(str(each.to_datasets(tmp_path / name)))
        for each, name in ((store, "x"), (other, "y"))
    ]
    assert tables[0]._fingerprint != tables[1]._fingerprint
