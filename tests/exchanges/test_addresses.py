"""Stores, shuffles and features at addresses of fsspec: ``file://``, and a real server that speaks S3."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

import garcon_jupyter as garcon
from garcon_jupyter.activation_stores import ActivationStore, from_arrays, open_store
from garcon_jupyter.activation_stores.addresses import StoreAddress, directory_of
from garcon_jupyter.exchanges import shuffle
from garcon_jupyter.features import features
from tests import object_store
from tests.exchanges.conftest import ROWS, content, make, numbers_in, plan_for
from tests.exchanges.test_shuffle import Dies

BUCKET = "s3://garcon"


@pytest.fixture(scope="module")
def s3() -> Iterator[StoreAddress]:
    """The root of a real object store, found by this process and those that it starts."""
    with object_store.served() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield StoreAddress(BUCKET)


def content_at(where: StoreAddress) -> dict[str, bytes]:
    """All files at an address."""
    return {name: (where / name).read_bytes() for name in where.sizes()}


# -- without a server ------------------------------------------------------------------------------


def test_a_file_address_is_a_directory(source: ActivationStore, tmp_path: Path) -> None:
    expected = content(shuffle(source, tmp_path / "expected", seed=7))
    store = open_store(f"file://{source.path}")
    assert store.path == source.path and np.array_equal(numbers_in(store), np.arange(ROWS))
    mixed = shuffle(f"file://{source.path}", f"file://{tmp_path}/mixed", seed=7)
    assert content(mixed) == expected
    assert directory_of("file:///a%20b/c") == Path("/a b/c")
    values = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    acts = from_arrays(f"file://{tmp_path}/other", values, dtype="float32")
    atlas = features(f"file://{acts.path}", f"file://{tmp_path}/atlas", k=2, sample=5)
    assert len(garcon.open_atlas(f"file://{atlas.path}")) == 6


@pytest.mark.parametrize("module", ["fsspec", "fsspec.core"])
def test_nothing_is_imported_unasked_and_what_is_missing_is_told(
    module: str, source: ActivationStore
) -> None:
    code = (
        "import sys; import garcon_jupyter as garcon\n"
        "from garcon_jupyter.exchanges import shuffle\n"
        f"store = garcon.open_store({str(source.path)!r}); store.read(0, 5, 'numpy')\n"
        "assert 'fsspec' not in sys.modules and 's3fs' not in sys.modules\n"
        f"sys.modules[{module!r}] = None\n"
        "try: garcon.open_store('s3://garcon/acts')\n"
        "except garcon.MissingModule as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install garcon-jupyter[s3]" in done.stdout, done.stderr


def test_what_cannot_be_at_an_address_says_what_to_do(
    source: ActivationStore, tmp_path: Path, rmodel: garcon.RemoteModel
) -> None:
    with pytest.raises(garcon.BadRequest, match=r"no address: .*nowhere.* give a directory"):
        open_store("nowhere://garcon/acts")
    somewhere = "memory://garcon/mixed"
    with pytest.raises(garcon.BadRequest, match=r"A shuffle needs a directory.* Give work="):
        shuffle(source, somewhere)
    with pytest.raises(garcon.BadRequest, match=r"atlas in the making needs .* Give work="):
        features(source, somewhere)
    with pytest.raises(garcon.BadRequest, match=r"Leave work= out"):
        shuffle(source, tmp_path / "mixed", work=tmp_path / "work")
    with pytest.raises(garcon.BadRequest, match=r"store\.copy\(address\)"):
        from_arrays(somewhere, np.zeros((3, 2), np.float32))
    with pytest.raises(garcon.BadRequest, match=r"store\.copy\(address\)"):
        rmodel.store("layers.1.resid_post", ["a"], somewhere, show=False)
    with pytest.raises(garcon.BadRequest, match=r"An atlas needs a directory.* Copy its files"):
        garcon.open_atlas(somewhere)
    with pytest.raises(garcon.BadData, match=r"no store of activations"):
        open_store(somewhere)
    assert not (tmp_path / "mixed").exists() and not Path("memory:").exists()


# -- with one --------------------------------------------------------------------------------------


@pytest.mark.processes
def test_a_store_is_copied_to_an_object_store_and_read_there(
    s3: StoreAddress, source: ActivationStore, tmp_path: Path
) -> None:
    there = source.copy(f"{BUCKET}/copied")
    assert str(there.path) == f"{BUCKET}/copied"
    assert content_at(s3 / "copied") == {
        name: bytes_ for name, bytes_ in content(source).items() if not name.startswith(".")
    }
    assert np.array_equal(numbers_in(there), np.arange(ROWS))
    assert there.document(333).token.tolist() == [333]
    there.verify()
    loader = DataLoader(there.dataset(512), batch_size=None, num_workers=2)  # in forks
    assert sorted(t for each in loader for t in each["token"].tolist()) == sorted(
        source[:].token.tolist()
    )
    assert source.copy(f"{BUCKET}/copied").rows == ROWS  # it is there
    assert np.array_equal(numbers_in(there.copy(tmp_path / "back")), np.arange(ROWS))
    with pytest.raises(garcon.BadData, match="another store"):
        make(tmp_path / "other", 50).copy(f"{BUCKET}/copied")
    with pytest.raises(garcon.BadData, match="no store of activations"):
        open_store(f"{BUCKET}/nothing")


@pytest.mark.processes
@pytest.mark.parametrize("how", ["flipped", "short", "gone"])
def test_a_damaged_file_at_an_address_is_named(
    how: str, s3: StoreAddress, source: ActivationStore, tmp_path: Path
) -> None:
    source.copy(f"{BUCKET}/{how}")
    name = sorted(name for name in (s3 / how).sizes() if name.endswith(".safetensors"))[2]
    whole = (s3 / how / name).read_bytes()
    damaged = tmp_path / "damaged"
    damaged.write_bytes(whole[:-3] + b"xyz" if how == "flipped" else whole[:-30])
    if how == "gone":
        import s3fs

        s3fs.S3FileSystem().rm(f"garcon/{how}/{name}")
    else:
        (s3 / how / name).put(damaged)
    with pytest.raises(garcon.BadData, match=name):
        shuffle(f"{BUCKET}/{how}", tmp_path / "mixed", seed=7)
    with pytest.raises(garcon.BadData, match="not complete|no store of"):
        open_store(tmp_path / "mixed")


@pytest.mark.processes
@pytest.mark.parametrize("workers", [1, 2])
def test_a_shuffle_between_addresses_has_the_same_bytes(
    workers: int, s3: StoreAddress, source: ActivationStore, tmp_path: Path
) -> None:
    """With processes of their own too, which find the address by themselves."""
    expected = content(shuffle(source, tmp_path / "expected", seed=7))
    source.copy(f"{BUCKET}/acts")
    to, work = f"{BUCKET}/mixed-{workers}", tmp_path / "work"
    options: dict[str, Any] = {"plan": plan_for(source, 400, 2, workers=workers), "work": work}
    if workers > 1:
        options["workers"] = workers
    mixed = shuffle(f"{BUCKET}/acts", to, 7, **options)
    assert np.array_equal(numbers_in(mixed), numbers_in(open_store(tmp_path / "expected")))
    assert content_at(directory_of(to)) == expected  # type: ignore[arg-type]
    assert [path.name for path in work.iterdir()] == [".lock"]
    assert shuffle(source, to, 7, work=work).rows == ROWS  # it is there
    with pytest.raises(garcon.BadData, match="seed was 7, and is 8"):
        shuffle(f"{BUCKET}/acts", to, 8, work=work)
    with pytest.raises(
        garcon.BadData, match=r"holds .*p-00000\.safetensors already|holds p\.jsonl"
    ):
        (s3 / f"half-{workers}" / "p.jsonl").put(tmp_path / "expected" / "p.jsonl")
        shuffle(source, f"{BUCKET}/half-{workers}", 7, work=tmp_path / "new")


@pytest.mark.processes
def test_a_shuffle_to_an_address_goes_on(
    s3: StoreAddress, source: ActivationStore, tmp_path: Path
) -> None:
    expected = content(shuffle(source, tmp_path / "expected", seed=7))
    plan, to, work = plan_for(source, 400, 2), f"{BUCKET}/going-on", tmp_path / "work"
    for _ in range(30):
        try:
            shuffle(source, to, 7, plan=plan, engine=Dies(2), work=work)
            break
        except KeyboardInterrupt:
            with pytest.raises(garcon.BadData, match="no store of activations"):
                open_store(to)
            assert not list(work.glob("*.safetensors*"))  # none lies about
    assert content_at(s3 / "going-on") == expected


@pytest.mark.processes
def test_features_of_a_store_at_an_address(s3: StoreAddress, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    acts = from_arrays(tmp_path / "acts", values, dtype="float32")
    acts.copy(f"{BUCKET}/dense")
    options: dict[str, Any] = {"k": 3, "sample": 20}
    expected = features(acts, tmp_path / "expected", **options)
    to = f"{BUCKET}/atlas"
    made = features(f"{BUCKET}/dense", to, work=tmp_path / "work", **options)
    assert np.array_equal(made.array("top_values"), expected.array("top_values"))
    there = content_at(s3 / "atlas")
    assert there == {p.name: p.read_bytes() for p in made.path.iterdir() if p.name != ".lock"}
    assert there["top_places.npy"] == (expected.path / "top_places.npy").read_bytes()
    again = features(f"{BUCKET}/dense", to, work=tmp_path / "work", **options)
    assert again.path == made.path
    with pytest.raises(garcon.BadRequest, match="Copy its files"):
        garcon.open_atlas(to)


@pytest.mark.processes
def test_training_from_an_address_is_training_from_the_store(
    s3: StoreAddress, rmodel: garcon.RemoteModel, tmp_path: Path
) -> None:
    data = [np.random.default_rng(n).integers(3, 250, 20 + n % 9) for n in range(20)]
    point = "layers.1.resid_post"
    store = rmodel.store(point, data, tmp_path / "acts", show=False)
    assert store is not None
    store.copy(f"{BUCKET}/training")
    options: dict[str, Any] = {"k": 4, "batch": 64, "show": False}
    for name, where in (("here", store.path), ("there", f"{BUCKET}/training")):
        rmodel.train_dictionary(point, where, 56, out=tmp_path / name, **options)
    here, there = (tmp_path / name / "sae_weights.safetensors" for name in ("here", "there"))
    assert here.read_bytes() == there.read_bytes()
    with pytest.raises(garcon.BadRequest, match="What a server writes needs a directory"):
        rmodel.train_dictionary(point, store.path, 56, out=f"{BUCKET}/sae", **options)


@pytest.mark.processes
def test_an_address_that_does_not_answer_is_named(
    s3: StoreAddress, source: ActivationStore, tmp_path: Path
) -> None:
    code = (
        "import garcon_jupyter as garcon\n"
        "try: garcon.open_store('s3://garcon/acts')\n"
        "except garcon.Unreachable as error: print(error)"
    )
    nobody = {**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=nobody
    )
    assert "s3://garcon/acts" in done.stdout and "Do endpoint and credentials hold?" in done.stdout
    with pytest.raises(garcon.Unreachable, match="NoSuchBucket|bucket does not exist"):
        source.copy("s3://no-such-bucket/acts")
