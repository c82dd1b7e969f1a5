"""The first process of a server, where it cannot begin."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from garcon_backend.supervision import preloaded, start
from garcon_jupyter.errors import LibraryChanged
from garcon_jupyter.wire.failures import revive
from garcon_jupyter.wire.launch_spec import Degrees, LaunchSpec


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Its main function holds back the signal to end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def written(directory: Path) -> tuple[LaunchSpec, Path]:
    spec = LaunchSpec(
        name="tiny",
        model="/models/tiny",
        directory=directory,
        shared=directory,
        registry=directory,
        degrees=Degrees(),
        dtype=None,
        device="cpu",
        loader=None,
        settings={},
    )
    file = directory / "spec.json"
    file.write_text(json.dumps(dataclasses.asdict(spec), default=str))
    return spec, file


def test_a_library_that_has_changed_fails_the_launch_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse() -> None:
        raise LibraryChanged("transformers 9.0 has no x.", "pip install an older one.")

    spec, file = written(tmp_path)
    monkeypatch.setattr(preloaded, "possible", lambda: True)
    monkeypatch.setattr(preloaded, "preload", refuse)
    monkeypatch.setattr(start, "_given", Path.exists)
    assert start.main(str(file)) == 1
    error = revive(json.loads(spec.failure_file.read_text()))
    assert isinstance(error, LibraryChanged)
    assert (error.problem, error.remedy) == (
        "transformers 9.0 has no x.",
        "pip install an older one.",
    )


def test_where_the_launch_went_away_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse() -> None:
        raise LibraryChanged("torch 9.0 has no x.")

    monkeypatch.setattr(preloaded, "possible", lambda: True)
    monkeypatch.setattr(preloaded, "preload", refuse)
    monkeypatch.setattr(start, "_given", Path.exists)
    assert start.main(str(tmp_path / "spec.json")) == 1
    assert list(tmp_path.iterdir()) == []
