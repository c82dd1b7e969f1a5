"""One word, one meaning: the glossary's terms have their homes, and a class has its name alone."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
FOLDERS = {"garcon_jupyter": ROOT, "garcon_backend": ROOT / "backend"}

HOMONYMS: dict[str, int] = {}
"""Names that several classes still share, and how many; this table only gets shorter."""


def terms() -> list[tuple[str, str, str]]:
    """(term, meaning, home) of each row."""
    rows = re.findall(r"^\| (.+?) \| (.+) \| `([\w.:]+)` \|$", GLOSSARY.read_text("utf-8"), re.M)
    return [(term, meaning, home) for term, meaning, home in rows]


def source(home: str) -> str | None:
    """The text of a module or of a room's ``__init__``; None where there is none."""
    module = home.partition(":")[0]
    path = FOLDERS[module.partition(".")[0]].joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.exists():
            return file.read_text("utf-8")
    return None


def defined(text: str) -> set[str]:
    """Names that a module defines at its top."""
    names: set[str] = set()
    for node in ast.parse(text).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def missing(term: str, home: str) -> str:
    """What is wrong with a term's home; "" where it is right."""
    text, name = source(home), home.partition(":")[2]
    if text is None:
        return "there is no such module"
    if name:
        return "" if name in defined(text) else f"it defines no {name}"
    words = term.split()
    plain = re.sub(r"[\s*_-]+", " ", text).lower()
    return "" if all(word.lower() in plain for word in words) else "it does not name it"


@pytest.mark.parametrize(("term", "home"), [(term, home) for term, _, home in terms()])
def test_a_term_has_its_home(term: str, home: str) -> None:
    assert missing(term, home) == "", f"{term}: {home}"


def test_what_is_no_home_is_seen() -> None:
    assert missing("probe", "garcon_jupyter.client.probe:Probe") == "there is no such module"
    assert missing("probe", "garcon_jupyter.client.probes:Prober") == "it defines no Prober"
    assert missing("tombstone", "garcon_jupyter.points.table") == "it does not name it"


def test_each_term_is_said_once_and_in_whole_sentences() -> None:
    found = terms()
    words = [term for term, _, _ in found]
    assert len(words) == len(set(words)) > 50
    assert all(len(meaning) < 260 and meaning.endswith(".") for _, meaning, _ in found)


def classes() -> dict[str, list[str]]:
    """Modules by the name of each class at their top."""
    found: dict[str, list[str]] = defaultdict(list)
    for package, folder in FOLDERS.items():
        for file in sorted((folder / package).rglob("*.py")):
            for node in ast.parse(file.read_text("utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(str(file.relative_to(folder)))
    return found


def test_no_new_class_takes_a_name_that_another_has() -> None:
    shared = {name: homes for name, homes in classes().items() if len(homes) > 1}
    new = {name: homes for name, homes in shared.items() if len(homes) > HOMONYMS.get(name, 1)}
    assert new == {}, "Give it a name of its own; the glossary has the words that are taken."


def test_names_that_are_one_classs_own_again_are_off_the_table() -> None:
    found = classes()
    assert {name: len(found[name]) for name in HOMONYMS} == HOMONYMS
