"""``pytest --quick``: every test that runs in this one process, and no other; of all architectures, three unlike ones.

What starts a server, a browser or any other process takes seconds where the rest takes milliseconds. Such a test is known by
the fixtures that it uses, or says so by ``pytestmark = pytest.mark.processes``; so does a parameter of a fixture. One that says nothing and starts a
process all the same fails under ``--quick``, so that what is called quick stays so.
"""

from __future__ import annotations

import multiprocessing.process
import sys
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

UNLIKE = {"llama", "gpt2", "mixtral"}
"""Architectures that a quick run looks at: rotary and learned positions, dense and experts; all others in `make test`."""

_started: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only tests that run in this process")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "processes: starts processes of its own; left out by --quick"
    )
    if config.getoption("--quick"):
        sys.addaudithook(_noticed)
        start = multiprocessing.process.BaseProcess.start
        multiprocessing.process.BaseProcess.start = _noticing(start)  # type: ignore[method-assign]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Folders of which nothing would be left; to import their tests takes time."""
    here = Path(__file__).parent
    whole = collection_path.parent == here and collection_path.name in WHOLE_FOLDERS
    return True if whole and config.getoption("--quick") else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        left_out = [item for item in items if starts_processes(item) or is_one_of_many(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def starts_processes(item: pytest.Item) -> bool:
    """Whether a test says so, or uses a fixture behind which there is a process."""
    fixtures: list[str] = getattr(item, "fixturenames", [])
    return bool(STARTING.intersection(fixtures) or item.get_closest_marker("processes"))


def is_one_of_many(item: pytest.Item) -> bool:
    """Whether a test is of an architecture that says little more than another."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return parameters.get("case", parameters.get("family", "llama")) not in UNLIKE


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
