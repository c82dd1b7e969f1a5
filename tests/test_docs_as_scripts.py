"""Each block of the README and the pages is a script of its own: a fresh process, with nothing imported before.

A block is run after those before it on its page that bind names which it uses, and no others: so what one block happens to
have imported, attached or saved helps no other by accident. The server is warm, as it is for somebody who goes on after a break.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import symtable
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager

import garcon_jupyter as garcon
from garcon_jupyter.servers import fleet_files, registry
from tests.conftest import quiet
from tests.test_coming_from import snippets
from tests.test_docs import PAGES, README, RUN_ELSEWHERE, blocks

pytestmark = pytest.mark.processes

RUN = """
import gc, json, sys

gc.disable()  # a fifth of the time would go into collections while torch is imported, which find nothing
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for cell in json.loads(sys.argv[1]):
    result = shell.run_cell(cell)
    if not result.success:
        sys.exit(1)
"""

SCOPES = (ast.FunctionDef, ast.Lambda, ast.ClassDef, ast.ListComp, ast.GeneratorExp, ast.DictComp)

MODEL = "rmodel"
"""What the cell magics use without naming it."""


def names(source: str) -> tuple[set[str], set[str]]:
    """The names and points that a block uses and does not bind itself, and those that it binds."""
    plain = TransformerManager().transform_cell(source)
    table = symtable.symtable(plain, "<block>", "exec")
    bound = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    used = {s.get_name() for s in table.get_symbols() if s.is_referenced()} - bound
    inner = list(table.get_children())
    while inner:
        scope = inner.pop()
        inner += scope.get_children()
        used |= {s.get_name() for s in scope.get_symbols() if s.is_global()} - bound
    used |= _used_before_bound(ast.parse(plain))
    named, probed = points(source)
    used, bound = used | named, bound | probed
    if "get_ipython" in used:
        (bound if "%garcon launch" in source else used).add(MODEL)
    return used, bound


def _used_before_bound(tree: ast.Module) -> set[str]:
    """Names that are read at the top before anything binds them, as `x` in ``x = x + 1``."""
    bound: set[str] = set()
    early: set[str] = set()
    for statement in tree.body:
        found = list(_outside_functions(statement))
        early |= {n.id for n in found if isinstance(n, ast.Name) and _read(n)} - bound
        bound |= {n.id for n in found if isinstance(n, ast.Name) and not _read(n)}
        bound |= {n.name for n in found if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        bound |= {a.asname or a.name.split(".")[0] for a in found if isinstance(a, ast.alias)}
    return early


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if not isinstance(node, SCOPES):
        for child in ast.iter_child_nodes(node):
            yield from _outside_functions(child)


def _read(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Load)


def points(source: str) -> tuple[set[str], set[str]]:
    """The points that a cell names, and those that it probes: what it reads there needs the probe."""
    probed = set(re.findall(r"^%%probe (\S+)", source, flags=re.M))
    return set(re.findall(r"\"(layers\.[\w.]+)\"", source)) - probed, probed


def with_what_it_needs(page: list[str], number: int) -> list[str]:
    """A block as a script of its own: its cells."""
    needed, _ = names(page[number])
    chosen = [page[number]]
    for earlier in reversed(page[:number]):
        used, bound = names(earlier)
        if needed & bound:
            chosen.insert(0, earlier)
            needed = (needed - bound) | used
    return chosen


def pages() -> dict[str, list[str]]:
    """The blocks of each page that one machine can run, in order."""
    found = {
        page.name: [source for source, here in blocks(page) if here]
        for page in PAGES
        if page.name not in RUN_ELSEWHERE
    }
    begin = snippets()[0]["Garçon"]
    found["coming-from.md"] = [begin, *(section["Garçon"] for section in snippets()[1:])]
    return found


BLOCKS = [
    pytest.param(with_what_it_needs(page, number), id=f"{name}-{number}")
    for name, page in pages().items()
    for number in range(len(page))
]


@pytest.fixture(scope="module")
def warm() -> garcon.Server:
    """The server that a launch without a name finds."""
    return garcon.launch("smollm2", progress=quiet)


@pytest.fixture
def no_fleet_stays() -> Iterator[None]:
    """A fleet's name means the checkpoints of one directory, and each script has its own."""
    yield
    for fleet in fleet_files.fleets():
        if fleet.living(registry.servers()):
            list(fleet_files.stopped(fleet.name, force=True))


@pytest.fixture
def no_dictionary_stays(warm: garcon.Server) -> Iterator[None]:
    """A dictionary's name means the files of one directory, too."""
    yield
    if not warm.file.exists():  # a script may have stopped it
        return
    model = garcon.connect(warm.name)
    for name in list(model.dictionaries):
        model.dictionaries.unload(name)
    model.close()


@pytest.mark.usefixtures("no_fleet_stays", "no_dictionary_stays")
@pytest.mark.parametrize("cells", BLOCKS)
def test_a_block_is_a_script_of_its_own(
    cells: list[str], warm: garcon.Server, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(cells)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def test_a_block_takes_no_more_than_it_needs() -> None:
    page = ["import torch\nrmodel = 1", "x = 2", "def f():\n    return rmodel", "f()", "y = x"]
    assert with_what_it_needs(page, 3) == [page[0], page[2], page[3]]
    assert with_what_it_needs(page, 4) == [page[1], page[4]]
    magics = ["%garcon launch smollm2", "z = 1", "%%probe layers.4.mlp.out\nsave_ctx.x = tensor"]
    assert with_what_it_needs(magics, 2) == [magics[0], magics[2]]


def test_readme_is_among_them() -> None:
    assert len(pages()[README.name]) > 10 and sum(map(len, pages().values())) > 25
