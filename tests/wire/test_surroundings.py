"""What two processes must have in common before one is forked for the other."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

from garcon_jupyter.wire.surroundings import HEAP, at_start, surroundings


def test_what_is_read_at_the_start_is_set_once() -> None:
    first = at_start({"A": "1", "GLIBC_TUNABLES": "glibc.malloc.check=3"})
    assert first == {
        "A": "1",
        "PYTHONHASHSEED": "0",
        "GOMP_SPINCOUNT": "20000",
        "GLIBC_TUNABLES": f"{HEAP}:glibc.malloc.check=3",
    }
    assert at_start(first) == first
    assert at_start({"GOMP_SPINCOUNT": "0", "PYTHONHASHSEED": "7"})["GOMP_SPINCOUNT"] == "0"
    assert at_start({})["GLIBC_TUNABLES"] == HEAP


@pytest.mark.parametrize("word", ["JPY_SESSION_NAME", "PWD", "VSCODE_PID", "TERM_PROGRAM", "_"])
def test_who_starts_it_does_not_count(word: str) -> None:
    assert surroundings({"A": "1", word: "x"}) == surroundings({"A": "1", word: "y"})


@pytest.mark.parametrize(
    "word",
    ["PYTHONPATH", "LD_PRELOAD", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HOME", "GARCON_HANG_TIME", "TORCH_LOGS"],
)  # fmt: skip
def test_what_packages_may_read_counts(word: str) -> None:
    assert surroundings({"A": "1", word: "x"}) != surroundings({"A": "1", word: "y"})
    assert surroundings({"A": "1", word: "x"}) != surroundings({"A": "1"})


def test_limits_and_cores_count() -> None:
    before = surroundings({})
    assert json.loads(json.dumps(before)) == before
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    other = 0 if soft else 1
    if hard != resource.RLIM_INFINITY and other > hard:
        pytest.skip("the system gives no other limit")
    resource.setrlimit(resource.RLIMIT_CORE, (other, hard))
    try:
        after = surroundings({})
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    assert [word for word in before if before[word] != after[word]] == ["limits"]
    assert before["user"][:2] == [os.getuid(), os.getgid()]  # type: ignore[index]
    assert before["group"] == Path("/proc/self/cgroup").read_text()
