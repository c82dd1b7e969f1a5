"""Backups of save contexts: what a finished request left, and nothing that a later one made of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from garcon_backend.probing.backups import Backups, Lost
from garcon_backend.probing.contexts import Contexts

KEY = ("me", "layers.0.mlp.out", None)
POINT = KEY[1]


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def contexts(directory: Path, limit: int = 1 << 30) -> Contexts:
    made = Contexts()
    made.back_up(Backups(directory, limit))
    return made


def written(directory: Path) -> dict[str, Any]:
    """What a new process finds."""
    found = dict(Backups(directory).restored())
    return found[KEY].values if KEY in found else {}


def save(made: Contexts, request: str, **values: Any) -> None:
    made.begin()
    context = made.open(*KEY)
    for name, value in values.items():
        setattr(context, name, value)
    made.end(request)


def test_what_was_saved_is_found_by_the_next_process(tmp_path: Path) -> None:
    first = contexts(tmp_path)
    x = torch.randn(3, 4)
    save(first, "forward 1", x=x, words=["a", torch.arange(3)], n=7)
    until(lambda: written(tmp_path))
    second = contexts(tmp_path)
    context = second.open(*KEY)
    assert torch.equal(context.x, x)
    assert context.n == 7
    assert torch.equal(context.words[1], torch.arange(3))
    assert second.origin("me", (POINT, None), "n", context.n) == "forward 1"
    context.n = 8
    assert second.origin("me", (POINT, None), "n", context.n) == ""


def test_of_a_tensor_that_changes_in_place_the_finished_state_is_kept(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    save(made, "forward 1", total=torch.ones(2))
    until(lambda: written(tmp_path))
    made.begin()
    context = made.open(*KEY)
    for _ in range(50):
        context.total.add_(1)
        time.sleep(0.005)  # beside the writer, who must not write what is not finished
    assert written(tmp_path)["total"].tolist() == [1, 1]
    made.end("forward 2")
    until(lambda: written(tmp_path)["total"].tolist() == [51, 51])


def test_a_list_that_grows_in_the_next_request_is_kept_as_it_was(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    save(made, "forward 1", seen=[1])
    made.begin()
    made.open(*KEY).seen.append(2)
    until(lambda: written(tmp_path))
    assert written(tmp_path)["seen"] == [1]


class Counter:
    """An object of the user's own, which does not tell when it changes."""

    def __init__(self) -> None:
        self.n = 0


def test_an_object_that_does_not_tell_is_copied_before_it_changes(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    save(made, "forward 1", counter=Counter())
    made.begin()
    made.open(*KEY).counter.n = 5
    until(lambda: written(tmp_path))
    assert written(tmp_path)["counter"].n == 0
    made.end("forward 2")
    until(lambda: written(tmp_path)["counter"].n == 5)


def test_what_cannot_be_kept_is_named(tmp_path: Path) -> None:
    made = contexts(tmp_path, limit=1000)
    save(made, "forward 1", small=torch.ones(2), big=torch.ones(1000), lock=threading.Lock())
    until(lambda: written(tmp_path))
    found = written(tmp_path)
    assert found["small"].tolist() == [1, 1]
    assert isinstance(found["big"], Lost)
    assert "4,000 bytes, with" in found["big"].why
    assert "cannot pickle '_thread.lock'" in found["lock"].why


def test_what_was_cleared_does_not_come_back(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    save(made, "forward 1", n=1)
    until(lambda: written(tmp_path))
    made.begin()
    made.clear("me")
    made.end("clear 2")
    until(lambda: not written(tmp_path))


@pytest.mark.parametrize("cut", [1, 40, -1])
def test_a_torn_file_is_left_out(tmp_path: Path, cut: int) -> None:
    made = contexts(tmp_path)
    save(made, "forward 1", n=torch.ones(100))
    until(lambda: written(tmp_path))
    (file,) = tmp_path.glob("*.context")
    file.write_bytes(file.read_bytes()[:cut])
    found = written(tmp_path)
    assert not found or isinstance(found["n"], Lost)


def test_the_files_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "rank-0"
    made = contexts(directory)
    save(made, "forward 1", n=1)
    until(lambda: written(directory))
    assert directory.stat().st_mode & 0o077 == 0
