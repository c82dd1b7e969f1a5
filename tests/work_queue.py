"""``pytest --queue DIRECTORY``: several runs of pytest side by side take their tests from one queue, so that all end at about the same time.

Each run collects all tests, and before those of a file it claims the file: it creates a file of that name in the directory, which
one run alone can do. So a run takes the next where it has done with one, whatever that took. Tests that start processes come first, for they
wait, and leave time to a run that has ``--only in-process``; and files that take minutes before all others, so that none of them is begun at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.quick import needs_the_cores

WHOLE_FOLDERS = ("browser", "server_extension")
"""Folders that are claimed as if they were one file: what their tests share is a JupyterLab with a browser, or a Jupyter server."""

LAST = "browser"
"""What a run takes last of all: Playwright's event loop would be in the way of other tests."""

LONG = (
    "backend/test_parity.py",
    "test_docs_as_scripts.py",
    "behaviour/test_multi_host.py",
    "behaviour/test_sharded_servers.py",
    "test_docs.py",
    "behaviour/test_fuzzing.py",
    "behaviour/test_interrupts.py",
    "behaviour/test_soak.py",
    "behaviour/test_runs.py",
    "behaviour/test_losses.py",
    "backend/models/test_families.py",
    "backend/test_identities.py",
    "backend/test_every_architecture.py",
    "certificate/test_certificate_faults.py",
)
"""Files of a minute and more, the longest first."""

Group = tuple[str, bool]
"""A file or folder below this one; and whether its tests need the cores, or run beside others (:mod:`tests.quick`)."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--queue",
        metavar="DIRECTORY",
        type=Path,
        help="take files in turn with all runs that name this directory, which is empty at first",
    )


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """What pytest does without us, with the next test asked for one by one, and not of a list."""
    queue: Path | None = session.config.getoption("--queue")
    if queue is None or session.testsfailed or session.config.option.collectonly:
        return None
    items = claimed(session.items, queue)
    item = next(items, None)
    while item is not None:
        following = next(items, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True


def claimed(items: list[pytest.Item], queue: Path) -> Iterator[pytest.Item]:
    """The tests of this run. A file is claimed when the first of its tests is asked for."""
    for group, tests in in_order(items).items():
        if _claim(group, queue):
            yield from tests
            if group[0] == LAST:
                return


def in_order(items: list[pytest.Item]) -> dict[Group, list[pytest.Item]]:
    """The tests by what is claimed at once, in the order in which they are claimed."""
    groups: dict[Group, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(_group(item), []).append(item)

    def place(group: Group) -> tuple[bool, bool, int]:
        name, needs = group
        return not needs, name == LAST, LONG.index(name) if name in LONG else len(LONG)

    return {group: groups[group] for group in sorted(groups, key=place)}


def _group(item: pytest.Item) -> Group:
    path = item.path.relative_to(Path(__file__).parent)
    whole = path.parts[0] in WHOLE_FOLDERS
    return path.parts[0] if whole else path.as_posix(), needs_the_cores(item)


def _claim(group: Group, queue: Path) -> bool:
    name, needs = group
    try:
        (queue / f"{name.replace('/', '+')} {needs}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
