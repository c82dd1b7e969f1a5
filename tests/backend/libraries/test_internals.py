"""All that is taken of libraries is declared in the room for it, is there, and is taken nowhere else.

A private name is a name with an underscore that our own source defines nowhere. It may be read, or replaced by a method of
ours, only in the files that declare it, with few exceptions, each with its reason.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import garcon_backend
from garcon_backend.libraries import jupyter_internals, torch_internals, transformers_internals
from garcon_jupyter.libraries.internals import Internal

ROOT = Path(__file__).parents[3]
FILES = [
    file
    for half in (ROOT / "garcon_jupyter", ROOT / "backend" / "garcon_backend")
    for file in sorted(half.rglob("*.py"))
]
DECLARED = {
    "transformers": transformers_internals.INTERNALS,
    "torch": torch_internals.INTERNALS,
    "ipykernel": jupyter_internals.INTERNALS,
}
LIBRARIES = {"transformers", "torch", "ipykernel", "IPython", "jupyter_client", "traitlets"}

STANDARD = {
    "os._exit",
    "sys._getframe",
    "sys._current_frames",
    "functools._lru_cache_wrapper",
    "backup._replace",  # of a named tuple, whose documented methods begin so
}
"""Names of Python's own library."""

EXCEPTIONS = {
    "user_code/pickling.py": "cloudpickle is held to one minor release, for these",
    "user_code/guests.py": "likewise",
    "magics/completion.py": "argparse's options by name, as Python has had them since 2.7",
    "imported.py": "whether a module is still being imported, of which importlib tells nothing else",
    "execution/generation_options.py": "where settings are from, for the words of an error; absent is as well",
    "hook_sites/staged/experts.py": "a module's own forward, in steps: its points are tested against it",
    "gradients/capture.py": "whether a module was compiled in place, of which torch tells nothing else; absent is as well",
    "kernel/application.py": "replaces ipykernel's methods, and calls two: declared in jupyter_internals",
}
"""Files beside the rooms ``libraries`` that read private names, and why."""

SUBMODULES = {
    "model_files/snapshots.py": "names of architectures, without importing what builds them",
}
"""Files that import from modules inside of transformers, and why."""


@functools.cache
def trees() -> list[tuple[str, ast.Module]]:
    rooms = [(file.relative_to(ROOT).as_posix(), file) for file in FILES]
    return [
        (room, ast.parse(file.read_text(encoding="utf-8")))
        for room, file in rooms
        if "/libraries/" not in room
    ]


@functools.cache
def _own_names() -> set[str]:
    """Private names that our own source defines."""
    found: set[str] = set()
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Store):
                found.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return found


def _private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.startswith("__")


def _foreign(tree: ast.AST, own: set[str]) -> Iterator[str]:
    """Private names of others that a file reads: as attributes, by ``getattr``, or imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _private(node.attr) and node.attr not in own:
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            name = getattr(node.args[1], "value", None)
            if _private(name) and name not in own:
                yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.partition(".")[0] in ("garcon_jupyter", "garcon_backend"):
                continue
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            yield from (f"{node.module}: {name}" for name in names if _private(name))


def _excused(room: str, table: dict[str, str]) -> bool:
    return any(room.endswith(file) for file in table)


def test_private_names_are_read_in_the_rooms_for_them_alone() -> None:
    own = _own_names()
    found = {
        f"{room}: {name}"
        for room, tree in trees()
        if not _excused(room, EXCEPTIONS)
        for name in _foreign(tree, own)
        if name not in STANDARD
    }
    assert not found, "declare it in garcon_backend/libraries, and take it from there"


@pytest.mark.parametrize(
    "line",
    [
        "model._can_set_attn_implementation()",
        "getattr(mesh, '_pg_registry', {})",
        "from torch.distributed.tensor.placement_types import _StridedShard",
        "from torch._dynamo import reset",
    ],
)
def test_a_private_name_is_found(line: str) -> None:
    assert list(_foreign(ast.parse(line), _own_names()))


def test_no_exception_is_idle() -> None:
    own = _own_names()
    reading = [room for room, tree in trees() if set(_foreign(tree, own)) - STANDARD]
    assert all(any(room.endswith(file) for room in reading) for file in EXCEPTIONS)


def test_what_is_inside_of_transformers_is_imported_in_one_file() -> None:
    """What it exports itself is what it documents."""
    inside = {
        f"{room}: {node.module}"
        for room, tree in trees()
        if not _excused(room, SUBMODULES)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("transformers.")
        and node.module != "transformers.utils"
    }
    assert not inside


@pytest.mark.parametrize("library", DECLARED)
def test_what_is_declared_is_there(library: str) -> None:
    assert [each.path for each in DECLARED[library] if each.lack()] == []
    assert len({each.path for each in DECLARED[library]}) == len(DECLARED[library])


def _replaced() -> Iterator[tuple[str, str]]:
    """Private methods of libraries' classes in whose place classes of ours have one: the class of ours, and the name."""
    for module in pkgutil.walk_packages(garcon_backend.__path__, "garcon_backend."):
        if module.name.endswith("__main__"):
            continue
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if kind.__module__ != module.name:
                continue
            theirs = [c for c in kind.__mro__ if c.__module__.partition(".")[0] in LIBRARIES]
            for name, value in vars(kind).items():
                written = inspect.isfunction(value) or name == "_update_exit_now"  # an observer
                if written and _private(name) and any(name in vars(c) for c in theirs):
                    yield kind.__name__, name


def test_methods_that_are_replaced_are_declared() -> None:
    declared = {each.name.rpartition(".")[2] for rows in DECLARED.values() for each in rows}
    replaced = set(_replaced())
    assert ("Agent", "_monitor_workers") in replaced
    assert {name for _, name in replaced} - declared == set()


def test_a_cache_is_called_what_the_model_calls_it() -> None:
    from transformers import LlamaForCausalLM

    assert transformers_internals.CACHE in inspect.signature(LlamaForCausalLM.forward).parameters
    assert transformers_internals.CACHE in transformers_internals.CACHES


def test_tensors_that_share_memory_are_known() -> None:
    whole = torch.zeros(4)
    part = whole[1:]
    other = torch.zeros(4)
    assert torch_internals.storage_of(whole) == torch_internals.storage_of(part)
    assert torch_internals.storage_of(whole) != torch_internals.storage_of(other)
    uses = torch_internals.uses_of_storage(whole)
    more = whole[2:]
    assert torch_internals.uses_of_storage(whole) == uses + 1 and len(more) == 2
    before = torch_internals.version_of(whole)
    whole.add_(1)
    assert torch_internals.version_of(whole) == before + 1


def test_a_release_without_it_is_refused_as_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    from garcon_jupyter.errors import LibraryChanged
    from garcon_jupyter.libraries import internals

    real = Internal.lack
    monkeypatch.setattr(
        internals.Internal, "lack", lambda each: "has gone" if "sdpa" in each.name else real(each)
    )
    with pytest.raises(LibraryChanged, match="transformers .* has gone, by which Garçon makes"):
        importlib.reload(transformers_internals)
    monkeypatch.undo()
    importlib.reload(transformers_internals)
