"""Backups of save contexts: what a finished request left, and nothing that a later one made of it.

A process that is killed leaves its files as they are at that moment: so what the next one finds is found in a copy.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from garcon_backend.save_contexts import backups, ledger
from garcon_backend.save_contexts.as_left import AsLeft
from garcon_backend.save_contexts.backups import Backups, Lost, Restored
from garcon_backend.save_contexts.contexts import Contexts
from garcon_jupyter.errors import NoRecording
from garcon_jupyter.recorders import TopK

KEY = ("me", "layers.0.mlp.out", None)
POINT = KEY[1]

LARGE = (backups.AT_ONCE >> 2) + 1
"""Numbers in a tensor that a short request does not write before its answer."""


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def contexts(directory: Path, limit: int = 1 << 30, rank: int = 0) -> Contexts:
    made = Contexts()
    kept = Backups(directory, limit, rank)
    made.back_up(kept, kept.finished)
    return made


def left(directory: Path, finished: int | None = None, rank: int = 0) -> dict[Any, Restored]:
    """What a new process would find, were this one killed now."""
    with tempfile.TemporaryDirectory() as name:
        for file in sorted(directory.glob("*")):  # the journal comes last: what it names is there
            with contextlib.suppress(FileNotFoundError):  # written just now, by the thread
                shutil.copy(file, name)
        kept = Backups(Path(name), rank=rank)
        return kept.restore(kept.finished if finished is None else finished)


def found(directory: Path, finished: int | None = None) -> dict[str, Any]:
    """The same of one context."""
    there = left(directory, finished)
    return there[KEY].values if KEY in there else {}


@pytest.fixture(autouse=True)
def small_journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are copied again and again here."""
    monkeypatch.setattr(ledger, "CAPACITY", 100_000)


@pytest.fixture
def nothing_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written but what is written before an answer."""
    monkeypatch.setattr(Backups, "flush", lambda self: None)


def save(made: Contexts, number: int, **values: Any) -> None:
    """A request of one rank."""
    made.begin()
    context = made.open(*KEY)
    for name, value in values.items():
        setattr(context, name, value)
    made.keep(number, f"forward {number}")
    made.end(number)


@pytest.mark.usefixtures("nothing_later")
def test_what_is_small_is_there_before_the_answer(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    x, y = torch.randn(3, 4), torch.randn(5).to(torch.bfloat16)
    array = np.arange(6.0).reshape(2, 3)
    save(made, 1, x=x, y=y, array=array, words=["a", torch.arange(3)], n=7, none=None, empty=())
    there = left(tmp_path)[KEY]
    assert torch.equal(there.values["x"], x)
    assert torch.equal(there.values["y"], y) and there.values["y"].dtype is torch.bfloat16
    assert np.array_equal(there.values["array"], array)
    assert torch.equal(there.values["words"][1], torch.arange(3))
    assert [there.values[name] for name in ("n", "none", "empty")] == [7, None, ()]
    assert set(there.requests.values()) == {"forward 1"}
    there.values["x"][0] = 5  # it is a tensor like any other


def test_a_process_goes_on_from_what_it_finds(tmp_path: Path) -> None:
    save(contexts(tmp_path), 1, n=7, rows=[1])
    second = contexts(tmp_path)
    assert second.finished == 1
    context = second.open(*KEY)
    for name in ("n", "rows"):
        value = vars(context)[name]
        assert second.origin("me", (POINT, None), name, value) == "forward 1"
    save(second, 2, n=1000)
    assert second.origin("me", (POINT, None), "n", context.n) == ""
    third = contexts(tmp_path)
    assert (third.finished, third.open(*KEY).n) == (2, 1000)


@pytest.mark.usefixtures("nothing_later")
def test_what_is_not_there_yet_is_named(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    save(made, 1, small=torch.ones(2), large=torch.ones(LARGE))
    values = left(tmp_path, rank=3)[KEY].values
    assert values["small"].tolist() == [1, 1]
    size = f"{4 * LARGE:,}"
    assert str(values["large"]) == (
        f"lost with rank 3: {size} bytes, not written yet, saved by forward 1"
    )
    again = contexts(tmp_path, rank=3)
    save(again, 2, other=1)
    values = left(tmp_path, rank=3)[KEY].values
    assert "saved by forward 1" in str(
        values["large"]
    )  # and not by the one that had nothing to do with it


def test_what_is_large_is_there_soon(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    x = torch.randn(LARGE)
    save(made, 1, x=x, own=Counter(), topk=torch.randn(9).topk(3))
    until(lambda: not any(isinstance(value, Lost) for value in found(tmp_path).values()))
    values = found(tmp_path)
    assert torch.equal(values["x"], x)
    assert values["own"].n == 0
    assert values["topk"].values.shape == (3,)


def test_of_a_tensor_that_changes_in_place_the_finished_state_is_kept(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    save(made, 1, total=torch.ones(2))
    made.begin()
    context = made.open(*KEY)
    for _ in range(50):
        context.total.add_(1)
        time.sleep(0.002)
    assert found(tmp_path)["total"].tolist() == [1, 1]
    made.keep(2, "forward 2")
    assert found(tmp_path)["total"].tolist() == [1, 1]  # other ranks may not be so far
    made.end(2)
    assert found(tmp_path)["total"].tolist() == [51, 51]


def test_a_large_one_that_changes_in_place_is_never_half_of_each(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    save(made, 1, total=torch.zeros(LARGE))
    for number in range(2, 40):
        made.begin()
        total = made.open(*KEY).total
        for part in total.chunk(4):
            part.add_(1)
            time.sleep(0.001)
        made.keep(number, f"forward {number}")
        made.end(number)
        value = found(tmp_path)["total"]
        assert isinstance(value, Lost) or torch.equal(value, torch.full((LARGE,), number - 1.0))
    until(lambda: not isinstance(found(tmp_path)["total"], Lost))
    assert torch.equal(found(tmp_path)["total"], torch.full((LARGE,), 38.0))


def test_a_rank_goes_back_to_what_all_have_finished(tmp_path: Path) -> None:
    """This one has put down request 2 and rank 0 was lost before it heard of it, or after."""
    made = contexts(tmp_path, rank=1)
    for number in (1, 2):
        made.begin()
        made.open(*KEY).x = torch.full((LARGE if number == 1 else 1,), float(number))
        made.open("me", POINT, f"named {number}").n = number
        made.keep(number, f"forward {number}")
        made.end()
        until(lambda: list(tmp_path.glob("*.value")))
    before, after = left(tmp_path, finished=1), left(tmp_path, finished=2)
    assert torch.equal(before[KEY].values["x"], torch.ones(LARGE))  # its file is still there
    assert [key[2] for key in before] == [None, "named 1"]
    assert after[KEY].values["x"].tolist() == [2]
    assert sorted(key[2] or "" for key in after) == ["", "named 1", "named 2"]
    made.begin()  # so request 2 is finished everywhere
    made.end()
    until(lambda: not list(tmp_path.glob("*.value")))


def test_what_no_request_has_finished_is_not_there(tmp_path: Path) -> None:
    """The very first, of which rank 0 never heard that all had put it down."""
    made = contexts(tmp_path)
    made.begin()
    made.open(*KEY).total = 1
    made.keep(1, "forward 1")
    assert not found(tmp_path)
    made.end(1)
    assert found(tmp_path)["total"] == 1


def test_a_list_that_grows_in_the_next_request_is_kept_as_it_was(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    save(made, 1, seen=[1], arrays=[np.zeros(4 * LARGE)])
    made.begin()
    made.open(*KEY).seen.append(2)
    made.open(*KEY).arrays[0] += 1
    until(lambda: not isinstance(found(tmp_path)["arrays"], Lost))
    assert found(tmp_path)["seen"] == [1]
    assert found(tmp_path)["arrays"][0].max() == 0


class Counter:
    """An object of the user's own, which does not tell when it changes."""

    def __init__(self) -> None:
        self.n = 0


def test_an_object_that_does_not_tell_is_copied_before_it_changes(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    save(made, 1, counter=Counter())
    made.begin()
    made.open(*KEY).counter.n = 5
    until(lambda: isinstance(found(tmp_path)["counter"], Counter))
    assert found(tmp_path)["counter"].n == 0
    made.keep(2, "forward 2")
    made.end(2)
    until(lambda: isinstance(found(tmp_path)["counter"], Counter))
    assert found(tmp_path)["counter"].n == 5


@pytest.mark.usefixtures("nothing_later")
def test_the_state_of_a_recorder_is_plain(tmp_path: Path) -> None:
    made, recorder = contexts(tmp_path), TopK(2)
    for number in (1, 2):
        made.begin()
        context = made.open(*KEY)
        here = SimpleNamespace(
            tokens=torch.arange(6).reshape(1, 6),
            mask=None,
            rows=slice(None),
            document=torch.zeros(1, 6, dtype=torch.long),
            offset=torch.arange(6).reshape(1, 6),
            positions=torch.arange(6).reshape(1, 6),
            point=POINT,
            token_index=None,
            shard=None,
        )
        with_here = {"here": here, "params": {}, "source": None, "shard": None}
        for name, value in with_here.items():
            object.__setattr__(context, name, value)
        recorder(context, torch.randn(1, 6, 4) + number)
        made.keep(number, f"forward {number}")
        made.end(number)
    state, kept = made.open(*KEY).topk, found(tmp_path)["topk"]
    assert AsLeft(state).plain
    assert kept.tokens_seen == state.tokens_seen == 12
    for name, tensor in state.tensors().items():
        assert torch.equal(getattr(kept, name), tensor), name


class Slow:
    """An object of the user's own, whose pickle waits as long as a file is there."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        end = time.monotonic() + 20
        while self.file.exists() and time.monotonic() < end:
            time.sleep(0.01)
        return Slow, (self.file,)


def test_pickling_that_runs_code_of_others_keeps_no_answer_waiting(tmp_path: Path) -> None:
    made, file = contexts(tmp_path / "rank-0"), tmp_path / "file"
    made.begin()
    made.open(*KEY).slow = [Slow(file)]
    file.touch()
    made.keep(1, "forward 1")
    made.end(1)
    lost = str(found(tmp_path / "rank-0")["slow"])
    assert "a value, not written yet, saved by forward 1" in lost
    file.unlink()
    until(lambda: isinstance(found(tmp_path / "rank-0")["slow"], list))


def test_what_cannot_be_kept_is_named(tmp_path: Path) -> None:
    made = contexts(tmp_path, limit=1000)
    save(made, 1, small=torch.ones(2), big=torch.ones(1000), lock=threading.Lock())
    until(lambda: "pickle" in str(found(tmp_path)["lock"]))
    there = found(tmp_path)
    assert there["small"].tolist() == [1, 1]
    assert "4,000 bytes, with" in str(there["big"])
    assert "cannot pickle '_thread.lock' object, saved by forward 1" in str(there["lock"])


def test_whoever_asks_for_what_is_lost_is_told(tmp_path: Path) -> None:
    save(contexts(tmp_path, limit=1000), 1, n=1, big=torch.ones(1000))
    context = contexts(tmp_path).open(*KEY)
    assert context.n == 1
    for ask in (
        lambda: context.big,
        lambda: getattr(context, "big", 0),
        lambda: hasattr(context, "big"),
    ):
        with pytest.raises(NoRecording, match=r"save_ctx.big was lost with rank 0: 4,000 bytes"):
            ask()
    context.big = 3
    assert context.big == 3


def test_what_was_cleared_does_not_come_back(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    save(made, 1, n=1, large=torch.ones(LARGE))
    made.begin()
    made.clear("me")
    made.keep(2, "clear 2")
    assert found(tmp_path)["n"] == 1
    made.end(2)
    assert not found(tmp_path)
    made.begin()
    made.end()
    until(lambda: not list(tmp_path.glob("*.value")))


@pytest.mark.usefixtures("nothing_later")
def test_a_kill_in_the_midst_of_writing_leaves_what_was(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    save(made, 1, x=torch.full((50,), 1.0))
    before = {file.name: file.read_bytes() for file in tmp_path.glob("journal*")}
    save(made, 2, x=torch.full((50,), 2.0))
    for file in tmp_path.glob("journal*"):
        was, new = before[file.name], file.read_bytes()
        if was == new:
            continue
        begins = next(n for n, (a, b) in enumerate(zip(was, new, strict=True)) if a != b)
        ends = max(n for n, (a, b) in enumerate(zip(was, new, strict=True)) if a != b) + 1
        seen = []
        for end in (*range(begins, ends, 7), ends):
            file.write_bytes(new[:end] + was[end:])
            (value,) = set(found(tmp_path)["x"].tolist())
            seen.append(value)
        assert seen == sorted(seen) and set(seen) == {1.0, 2.0}


def test_a_journal_that_is_full_goes_on_in_the_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "CAPACITY", 40_000)
    made = contexts(tmp_path)
    save(made, 1, x=torch.ones(5), large=torch.ones(LARGE))
    until(lambda: not isinstance(found(tmp_path)["large"], Lost))
    for number in range(2, 300):
        made.begin()
        made.open("me", POINT, str(number % 7)).x = torch.full((100,), float(number))
        made.keep(number, f"forward {number}")
        made.end(number)
    there = left(tmp_path)
    assert there[KEY].values["x"].tolist() == [1] * 5
    assert torch.equal(there[KEY].values["large"], torch.ones(LARGE))
    for number in range(293, 300):
        key = ("me", POINT, str(number % 7))
        assert there[key].values["x"].tolist() == [number] * 100
        assert there[key].requests["x"] == f"forward {number}"
    assert max(file.stat().st_size for file in tmp_path.glob("journal*")) < 3 * 40_000


@pytest.mark.usefixtures("nothing_later")
def test_a_torn_file_is_named(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    save(made, 1, n=torch.ones(LARGE))
    Path(tmp_path / "1.value").write_bytes(b"\x80\x05")
    assert "cannot be read again" in str(found(tmp_path)["n"])


def test_the_files_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "rank-0"
    made = contexts(directory)
    save(made, 1, n=1, large=torch.ones(LARGE))
    until(lambda: list(directory.glob("*.value")))
    assert directory.stat().st_mode & 0o077 == 0
    assert [file.stat().st_mode & 0o077 for file in directory.iterdir()] == [0, 0, 0]
