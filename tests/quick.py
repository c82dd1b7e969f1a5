"""``pytest --quick``: every test that runs in this one process, and no other; of all architectures, three unlike ones, and of
long tables of cases, which a test names by ``pytest.mark.sampled``, every tenth.

What starts a server, a browser or any other process takes seconds where the rest takes milliseconds. Such a test is known by
the fixtures that it uses, or says so by ``pytestmark = pytest.mark.processes``; so does a parameter of a fixture. One that says nothing and starts a
process all the same fails under ``--quick``, so that what is called quick stays so.
"""

from __future__ import annotations

import functools
import multiprocessing.process
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

STARTING = {
    *("llama_server", "llama_tp2_server", "smollm2_server", "either_served"),
    *("jupyter", "browser", "lab", "stages", "executed"),
}
"""Fixtures behind which there is a process; what depends on them is known by that."""

EVENTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system")

WHOLE_FOLDERS = ("behaviour", "browser")
"""Folders in which every test is of processes: not even collected."""

TIMED = (
    *(
        "connection/",
        "server_extension/",
        "servers/",
        "client/test_resuming",
        "widgets/test_worker",
    ),
    *(f"backend/{room}/" for room in ("kernel", "lockstep", "process", "save_contexts", "runs")),
    *("backend/supervision/", "user_code/test_own_modules"),
)
"""Where tests are of sockets, threads and clocks: in this process, and yet not beside others at a low priority."""

UNLIKE = {"llama", "gpt2", "mixtral"}
"""Architectures that a quick run looks at: rotary and learned positions, dense and experts; all others in `make test`."""

EVERY = 10
"""Of how many cases of a long table a quick run takes one."""

_started: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only tests that run in this process")
    parser.addoption(
        "--only",
        choices=("in-process", "processes"),
        help="tests that run in this process, of all architectures; or those that start others, wait, or judge by a clock",
    )
    parser.addoption(
        "--part",
        metavar="K/N",
        type=_part,
        default=(1, 1),
        help="of the files with such tests every N-th from the K-th on, for N such processes at once",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "processes: starts processes of its own; left out by --quick"
    )
    config.addinivalue_line(
        "markers", "lasting: waits, or trains, for seconds; left out by --quick"
    )
    config.addinivalue_line("markers", "sampled: of its cases --quick takes every tenth")
    if config.getoption("--quick"):
        sys.addaudithook(_noticed)
        start = multiprocessing.process.BaseProcess.start
        multiprocessing.process.BaseProcess.start = _noticing(start)  # type: ignore[method-assign]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Folders of which nothing would be left; to import their tests takes time."""
    here = Path(__file__).parent
    whole = collection_path.parent == here and collection_path.name in WHOLE_FOLDERS
    left_out = config.getoption("--quick") or config.getoption("--only") == "in-process"
    return True if whole and left_out else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = list(items)
    if only := config.getoption("--only"):
        chosen = [item for item in items if needs_the_cores(item) is (only == "processes")]
    elif config.getoption("--quick"):
        kept = [item for item in items if not (takes_seconds(item) or is_one_of_many(item))]
        chosen = sample(kept)
    chosen = in_part(chosen, config.getoption("--part"))
    config.hook.pytest_deselected(items=list(set(items) - set(chosen)))
    items[:] = chosen


def takes_seconds(item: pytest.Item) -> bool:
    """Whether a test says that it starts processes or waits, or uses a fixture behind which there is a process."""
    if item.path.relative_to(Path(__file__).parent).parts[0] in WHOLE_FOLDERS:
        return True
    fixtures: list[str] = getattr(item, "fixturenames", [])
    says = any(item.get_closest_marker(word) for word in ("processes", "lasting"))
    return says or bool(STARTING.intersection(fixtures))


def needs_the_cores(item: pytest.Item) -> bool:
    """Whether a test cannot run at a low priority, beside others: it takes seconds, or what it judges by is a clock."""
    path = item.path.relative_to(Path(__file__).parent).as_posix()
    return takes_seconds(item) or path.startswith(TIMED)


def is_one_of_many(item: pytest.Item) -> bool:
    """Whether a test is of an architecture that says little more than another."""
    parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
    return any(isinstance(one, str) and one in architectures() - UNLIKE for one in parameters)


@functools.cache
def architectures() -> set[str]:
    """What tests of many architectures call each: its name in transformers, or that of its family."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from garcon_backend.models.families import FAMILIES
    from tests import checkpoints
    from tests.backend.cases import EVERY as CASES

    made = {*checkpoints.FAMILIES, *checkpoints.MULTIMODAL, *CASES}
    return {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *FAMILIES, *made}


def sample(items: list[pytest.Item]) -> list[pytest.Item]:
    """Those that are no case of a long table, and of each such table every tenth case."""
    seen: Counter[str] = Counter()
    chosen = []
    for item in items:
        table = item.nodeid.partition("[")[0]
        if not item.get_closest_marker("sampled") or seen[table] % EVERY == 0:
            chosen.append(item)
        seen[table] += 1
    return chosen


def _part(text: str) -> tuple[int, int]:
    number, of = (int(word) for word in text.split("/"))
    if not 1 <= number <= of:
        raise ValueError(text)
    return number, of


def in_part(items: list[pytest.Item], part: tuple[int, int]) -> list[pytest.Item]:
    """Those of one of several parts; a file is in one of them whole, so that what its tests share is made once."""
    number, of = part
    files = list(dict.fromkeys(item.path for item in items))
    mine = set(files[number - 1 :: of])
    return [item for item in items if item.path in mine]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _started.clear()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    result = yield
    if _started and item.config.getoption("--quick"):
        pytest.fail(
            f"It has started a process ({_started[0]:.80}), and says nothing of it: "
            "pytestmark = pytest.mark.processes leaves it out of the quick tests."
        )
    return result


def _noticed(event: str, arguments: tuple[Any, ...]) -> None:
    if event in EVENTS:
        _started.append(f"{event} {arguments[1:2]}")


def _noticing(start: Any) -> Any:
    def noticed(process: Any) -> None:
        _started.append(f"multiprocessing {process.name}")
        start(process)

    return noticed
