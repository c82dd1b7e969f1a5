"""Rooms say what they are for, what does not belong there, and what is in them; the page of the architecture says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import generate, rooms

ROOMS = [
    pytest.param(folder, id=f"{Path(half).name}/{folder.name}")
    for half in rooms.HALVES
    for folder in sorted(file.parent for file in (rooms.ROOT / half).glob("*/__init__.py"))
]


@pytest.mark.parametrize("folder", ROOMS)
def test_a_room_says_what_it_is_for_and_lists_what_is_in_it(folder: Path) -> None:
    room = rooms.room(folder)
    assert room.subject.endswith(".") and room.not_here.endswith(".")
    there = {file.stem for file in folder.glob("*.py")} - {"__init__"}
    there |= {file.parent.name for file in folder.glob("*/__init__.py")}
    assert set(room.modules) == there


@pytest.mark.parametrize("half", rooms.HALVES)
def test_few_modules_lie_in_no_room(half: str) -> None:
    assert len(rooms.flat(half)) <= 8


@pytest.mark.parametrize("half", rooms.HALVES)
def test_every_folder_is_a_room(half: str) -> None:
    """Tools that walk packages see no folder without an ``__init__.py``."""
    bare = [
        folder
        for folder in (rooms.ROOT / half).rglob("*")
        if folder.is_dir() and any(folder.glob("*.py")) and not (folder / "__init__.py").exists()
    ]
    assert not bare


def test_the_page_of_the_architecture_is_what_the_rooms_say() -> None:
    text = generate.ARCHITECTURE.read_text(encoding="utf-8")
    assert text == generate.architecture(text), "run `make docs`"


def test_a_room_that_says_nothing_is_found(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text('"""Something."""\n', encoding="utf-8")
    (tmp_path / "module.py").touch()
    room = rooms.room(tmp_path)
    assert not room.not_here and not room.modules
