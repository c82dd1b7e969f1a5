"""Who may import what: no circles between files, no arrow upwards between rooms, and a rank without the notebook's half.

Imports inside functions and those for types only count as well: a reader walks them too. The layers are those that
``pyproject.toml`` declares for ``make lint``; here each rule is also shown to find a breach.
"""

from __future__ import annotations

import ast
import functools
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.errors import ERRORS

ROOT = Path(__file__).parents[1]
HALVES = {"garcon_jupyter": ROOT, "garcon_backend": ROOT / "backend"}

SHARED = {
    "activation_stores",
    "amounts",
    "errors",
    "imported",
    "libraries",
    "model_files",
    "dictionaries",
    "points",
    "recorders",
    "user_code",
    "wire",
}
"""Rooms and modules of the notebook's half that a rank may hold."""

Graph = Mapping[str, set[str]]
"""Each module, and the modules of its package that it imports."""


def graph(package: Path) -> Graph:
    """The imports of a package, of whatever kind."""
    files = {_name(file, package.parent): file for file in package.rglob("*.py")}
    return {name: set(_imported(name, file, files)) for name, file in files.items()}


def _name(file: Path, base: Path) -> str:
    parts = file.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(name: str, file: Path, known: Mapping[str, Path]) -> Iterator[str]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in _imports(file.read_text(encoding="utf-8")):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            whole = [f"{base}.{alias.name}" for alias in node.names]
            found = [each if each in known else base for each in whole]
        yield from (each for each in found if each in known and each != name)


@functools.cache
def _imports(source: str) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """The imports of a source, wherever they stand; copies of a file are read once."""
    found = ast.walk(ast.parse(source))
    return tuple(node for node in found if isinstance(node, ast.Import | ast.ImportFrom))


def circles(of: Graph) -> list[list[str]]:
    """Modules that import each other, in turn or at once: the strongly connected components (Tarjan 1972)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        numbers[module] = lowest[module] = len(numbers)
        path.append(module)
        for other in sorted(of[module]):
            if other not in numbers:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in path:
                lowest[module] = min(lowest[module], numbers[other])
        if lowest[module] == numbers[module]:
            members = path[path.index(module) :]
            del path[-len(members) :]
            if len(members) > 1:
                found.append(sorted(members))

    for module in of:
        if module not in numbers:
            visit(module)
    return found


def layers(package: str) -> list[set[str]]:
    """The rooms of each layer, the top first, as the contracts declare them."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (rows,) = [
        contract["layers"]
        for contract in told["importlinter"]["contracts"]
        if contract["type"] == "layers" and contract["containers"] == [package]
    ]
    return [set(row.split(" | ")) for row in rows]


def upward(of: Graph, floors: list[set[str]]) -> list[str]:
    """The imports of a room from one beside or above it."""
    floor = {room: number for number, rooms in enumerate(floors) for room in rooms}
    pairs = [(module, other) for module, others in of.items() for other in others]
    return [
        f"{module} imports {other}"
        for module, other in pairs
        if (one := _room(module)) in floor
        and (two := _room(other)) in floor
        and one != two
        and floor[one] >= floor[two]
    ]


def _room(module: str) -> str:
    return [*module.split("."), ""][1]


@pytest.fixture(scope="module")
def notebook() -> Graph:
    """The imports of the notebook's half."""
    return graph(ROOT / "garcon_jupyter")


@pytest.mark.parametrize("package", HALVES)
def test_no_files_import_each_other(package: str) -> None:
    assert circles(graph(HALVES[package] / package)) == []


@pytest.mark.parametrize("package", HALVES)
def test_rooms_import_from_below(package: str) -> None:
    assert upward(graph(HALVES[package] / package), layers(package)) == []


def test_every_room_has_a_layer(notebook: Graph) -> None:
    floors = set().union(*layers("garcon_jupyter"))
    assert {_room(module) for module in notebook} - floors == {"", "__main__", "launch"}


def test_pictures_are_of_plain_arrays_and_experiments_give_them(notebook: Graph) -> None:
    of = {
        room: {_room(o) for m, others in notebook.items() if _room(m) == room for o in others}
        for room in ("widgets", "experiments", "atlas")
    }
    assert of["widgets"] == {"widgets", "libraries", "amounts", "errors"}
    assert not {"widgets", "display"} & (of["experiments"] | of["atlas"])


@pytest.mark.parametrize("how", ["inside a function", "for types only", "at the top"])
def test_a_breach_is_found(how: str, tmp_path: Path) -> None:
    """Recordings that know a table again: the knot of which everything was a part once."""
    copy = tmp_path / "garcon_jupyter"
    shutil.copytree(
        ROOT / "garcon_jupyter", copy, ignore=shutil.ignore_patterns("labextension", "__pycache__")
    )
    line = "from garcon_jupyter.display import html"
    breach = {
        "inside a function": f"\n\ndef breach():\n    {line}\n",
        "for types only": f"\n\nif TYPE_CHECKING:\n    {line}\n",
        "at the top": f"\n{line}\n",
    }
    file = copy / "client" / "recordings.py"
    file.write_text(file.read_text(encoding="utf-8") + breach[how], encoding="utf-8")
    of = graph(copy)
    (knot,) = circles(of)
    assert {"garcon_jupyter.client.recordings", "garcon_jupyter.display.html"} <= set(knot)
    assert upward(of, layers("garcon_jupyter")) == [
        "garcon_jupyter.client.recordings imports garcon_jupyter.display.html"
    ]


def loaded(source: str) -> set[str]:
    """The rooms and modules of the notebook's half that a fresh process holds after some imports."""
    told = "; import sys; print(*(m for m in sys.modules if m.startswith('garcon_jupyter.')))"
    done = subprocess.run(
        [sys.executable, "-c", source + told],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {_room(module) for module in done.stdout.split()}


@pytest.mark.processes
def test_a_rank_holds_nothing_of_the_notebooks_half() -> None:
    held = loaded("import garcon_backend.kernel.startup, garcon_backend.execution.executor")
    assert held <= SHARED, held - SHARED
    assert {"wire", "points", "recorders"} <= held


@pytest.mark.processes
def test_experiments_need_no_widgets() -> None:
    names = "attention, live_edits, neurons, patching, read_lens, token_metrics"
    held = loaded(f"from garcon_jupyter.experiments import {names}")
    assert "client" in held and not {"widgets", "display", "facets"} & held


@pytest.mark.processes
def test_the_package_alone_costs_nothing() -> None:
    assert loaded("import garcon_jupyter") == {"errors", "imported", "user_code"}
    assert "client" in loaded("import garcon_jupyter; garcon_jupyter.RemoteModel")


def test_tab_shows_what_a_user_may_use() -> None:
    shown = {name for name in dir(garcon) if not name.startswith("_")}
    assert shown == set(garcon.__all__) | {
        "errors",
        "experiments",
        "recorders",
        "training",
        "widgets",
    }
    assert set(ERRORS) <= shown and len(shown - set(ERRORS)) < 35
    for name in shown:
        assert getattr(garcon, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'difflib'"):
        garcon.difflib  # noqa: B018


def test_no_room_hides_a_function_of_its_name() -> None:

    assert garcon.servers is sys.modules["garcon_jupyter.servers.registry"].servers  # type: ignore[attr-defined]


@pytest.mark.processes
def test_what_was_imported_for_a_user_shows_itself() -> None:
    """By whatever name it was reached first, in a fresh process."""
    for reached in ("RemoteModel", "open_atlas", "Recording", "launch"):
        assert "display" in loaded(f"from garcon_jupyter import {reached}")


@pytest.mark.processes
def test_a_launch_imports_no_atlas() -> None:
    """What is imported before a server's first process begins delays it."""
    held = loaded("import garcon_jupyter as garcon; garcon.launch_and_connect")
    assert "api" in held and not {"atlas", "recorders"} & held
