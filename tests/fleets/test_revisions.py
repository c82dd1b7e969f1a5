"""A fleet of a hub id's revisions, from the local cache as the hub's own library lays it out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

import garcon_jupyter as garcon
from garcon_jupyter.model_files import snapshots
from garcon_jupyter.servers import registry
from tests.conftest import quiet
from tests.oracle import PROMPT, Plain, close

ID = "lab/tiny-steps"

Cache = Callable[[str, Path], Path]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """Puts a checkpoint into an empty cache, as a revision of ID: blobs, a snapshot that links to them, and a ref."""
    root = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(revision: str, path: Path) -> Path:
        place = root / repo_folder_name(repo_id=ID, repo_type="model")
        commit = f"{len(list(place.glob('snapshots/*'))):040x}"
        snapshot = place / "snapshots" / commit
        for folder in (snapshot, place / "blobs", place / "refs"):
            folder.mkdir(parents=True, exist_ok=True)
        for file in path.iterdir():
            blob = place / "blobs" / f"{commit}-{file.name}"
            shutil.copy(file, blob)
            (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
        (place / "refs" / revision).write_text(commit)
        return snapshot

    return put


def test_a_revision_is_its_snapshot(cache: Cache, series: dict[str, Path]) -> None:
    first, second = cache("step8", series["step0"]), cache("step64", series["step 1"])
    found = {n: snapshots.resolve(ID, quiet, revision=n) for n in ("step8", "step64")}
    assert {n: one.path for n, one in found.items()} == {"step8": first, "step64": second}
    assert found["step8"].source == "hub"
    assert snapshots.resolve(ID, quiet, revision=second.name).path == second  # a commit


def test_what_the_cache_has_not_is_named(cache: Cache, series: dict[str, Path]) -> None:
    cache("step8", series["step0"])
    with pytest.raises(garcon.FetchFailed, match="no revision 'step9' of 'lab/tiny-steps'"):
        garcon.fleet(ID, revisions=["step8", "step9"], progress=quiet)


@pytest.mark.parametrize("path", ["smollm2", "."])
def test_only_hub_ids_have_revisions(path: str) -> None:
    with pytest.raises(garcon.NotAModel, match="has no revision 'step8'"):
        garcon.fleet(path, revisions=["step8"], progress=quiet)


@pytest.mark.parametrize(
    ("models", "revisions"), [(ID, None), (ID, []), (ID, "step8"), (ID, [8]), ({"a": "b"}, ["c"])]
)
def test_ids_and_revisions_go_together(models: object, revisions: object) -> None:
    with pytest.raises(garcon.BadRequest, match="name no members"):
        garcon.fleet(models, revisions=revisions, progress=quiet)  # type: ignore[arg-type]


@pytest.mark.processes
def test_a_fleet_of_revisions_is_in_the_order_of_steps(
    cache: Cache, series: dict[str, Path]
) -> None:
    cache("step64", series["step 1"])
    cache("step8", series["step0"])
    fleet = garcon.fleet(ID, revisions=["step64", "step8"], alive=1, progress=quiet)
    try:
        assert fleet.labels == ("step8", "step64") and fleet.name.startswith("tiny-steps-")
        found = fleet.forward(PROMPT)
        assert close(found["step64"], Plain(series["step 1"]).logits(PROMPT))
        assert close(found["step8"], Plain(series["step0"]).logits(PROMPT))
    finally:
        fleet.stop(force=True)
    assert not any(server.name.startswith(fleet.name) for server in registry.servers())
