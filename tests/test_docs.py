"""The documentation says what is so: pages are up to date, and the README's tour works as typed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat import NotebookNode

import garcon_jupyter as garcon
from docs import generate
from examples import demo
from garcon_jupyter.model_files import embedded
from garcon_jupyter.points import PARAMETERS, POINTS
from tests.conftest import quiet
from tests.oracle import Plain, close

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (
    *(README, ROOT / "CONTRIBUTING.md"),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "experiments").glob("*.md")),
)


def test_the_page_of_points_is_what_the_table_makes() -> None:
    assert generate.PAGE.read_text(encoding="utf-8") == generate.page(), "run `make docs`"


def test_the_page_of_points_has_every_row() -> None:
    page = generate.PAGE.read_text(encoding="utf-8")
    for spec in (*POINTS, *PARAMETERS):
        assert f"| `{spec.template}` |" in page


def test_the_options_of_a_launch_are_what_their_declaration_makes() -> None:
    text = generate.LAUNCH.read_text(encoding="utf-8")
    assert text == generate.launch(text), "run `make docs`"
    assert generate.launch(text.replace("`--tp N`", "`--tensor N`")) == text


def test_the_formats_of_dictionaries_are_what_their_table_makes() -> None:
    text = generate.DICTIONARIES.read_text(encoding="utf-8")
    assert text == generate.dictionaries(text), "run `make docs`"
    assert generate.dictionaries(text.replace("`BatchTopKSAE`", "`BatchTopK`")) == text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        file, _, heading = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), flags=re.M)
            anchors = [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]
            assert heading in anchors, target


@pytest.mark.processes
def test_the_demo_says_first_what_it_takes_and_installs_no_test_tools(tmp_path: Path) -> None:
    def would(goal: str) -> str:
        made = ["make", "--dry-run", f"VENV={tmp_path / 'venv'}", goal]
        return subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    demo = would("demo")
    assert demo.index(" GB") < demo.index("-m venv") < demo.index("pip install")
    assert demo.count("pip install") == 1 and "[notebook]" in demo
    assert "[notebook,test]" in would("lint")


# -- blocks of pages --------------------------------------------------------------------------------

ELSEWHERE = "<!-- needs another machine -->"
"""Stands before a block that a single machine cannot run; other tests have what it shows."""


def blocks(page: Path) -> Iterator[tuple[str, bool]]:
    """The Python of a page, and whether one machine can run it."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(rf"({ELSEWHERE}\n)?^```python\n(.*?)^```$", text, flags=re.M | re.S):
        yield found[2], found[1] is None


def script(page: Path) -> str:
    """What a newcomer pastes, from top to bottom."""
    return "\n".join(source for source, here in blocks(page) if here)


RUN_ELSEWHERE = {
    "coming-from.md": "test_coming_from.py",
    "family.md": "test_family_page.py",
    "loader.md": "test_loader_page.py",
}
"""Pages of three columns, or with a file in a block, and what runs them."""

WITH_BLOCKS = [page for page in PAGES if page != README and any(blocks(page))]


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: page.name)
def test_every_block_is_python(page: Path) -> None:
    for source, _ in blocks(page):
        compile(source, page.name, "exec")


PASTED = [page for page in WITH_BLOCKS if script(page) and page.name not in RUN_ELSEWHERE]


@pytest.mark.parametrize("page", PASTED, ids=lambda page: page.name)
def test_a_page_runs_as_printed(page: Path, smollm2_server: garcon.Server, tmp_path: Path) -> None:
    """In a fresh process, in an empty directory, by pasting."""
    (tmp_path / "pasted.py").write_text(script(page), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "pasted.py"], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_few_blocks_need_another_machine_and_other_pages_have_their_tests() -> None:
    assert all((ROOT / "tests" / test).exists() for test in RUN_ELSEWHERE.values())
    left_out = {page.name for page in PAGES for _, here in blocks(page) if not here}
    assert left_out == {"activations.md", "multi-host.md", "security.md"}


# -- the tour ------------------------------------------------------------------------------------


def tour() -> list[tuple[str, str | None]]:
    """The cells of the tour: source, and what the README says that the cell shows."""
    text = README.read_text(encoding="utf-8")
    section = text.split("## Five-minute tour\n", 1)[1].split("\n## ", 1)[0]
    cells = []
    for block in re.findall(r"^```python\n(.*?)^```$", section, flags=re.M | re.S):
        source, said = re.fullmatch(r"(.*?)((?:^# .*\n)?)", block, flags=re.M | re.S).groups()
        cells.append((source.rstrip("\n"), said.removeprefix("# ").rstrip("\n") or None))
    return cells


@pytest.fixture(scope="module")
def toured(tmp_path_factory: pytest.TempPathFactory) -> tuple[NotebookNode, dict]:
    """The tour as a notebook after its run in a real kernel, and some of its values."""
    directory = tmp_path_factory.mktemp("tour")
    cells = [nbformat.v4.new_code_cell(source) for source, _ in tour()]
    path = directory / "tour.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    keep = (
        "import torch\n"
        'torch.save({"logits": logits, "neurons": look[neurons.name], "gradient":'
        f' rmodel.recordings()[neurons.name].tensor}}, "{directory / "values.pt"}")'
    )
    done = demo.run(path, more=[keep])
    return done, torch.load(directory / "values.pt")


@pytest.mark.processes
def test_the_tour_shows_what_it_says(toured: tuple[NotebookNode, dict]) -> None:
    notebook, _ = toured
    cells = tour()
    said = [text for _, text in cells if text]
    assert len(cells) >= 10 and len(said) >= 5
    for (source, expected), cell in zip(cells, notebook.cells, strict=False):
        shown = [o.data["text/plain"] for o in cell.outputs if o.output_type == "execute_result"]
        if expected:
            assert shown == [expected], source


@pytest.mark.processes
def test_the_tour_draws(toured: tuple[NotebookNode, dict]) -> None:
    notebook, _ = toured
    (cell,) = [cell for cell in notebook.cells if "rmodel.show(" in cell.source]
    kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
    assert {"text/html", "application/vnd.jupyter.widget-view+json"} <= kinds


@pytest.mark.processes
def test_the_tours_values_are_transformers_own(toured: tuple[NotebookNode, dict]) -> None:
    _, values = toured
    plain = Plain(embedded.fetch("smollm2", progress=quiet))
    ids = plain.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    assert close(values["logits"], plain.logits(ids))
    assert close(values["neurons"], plain.neurons(4, ids))

    caught: list[torch.Tensor] = []

    def catch(module: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        caught.append(args[0].detach().requires_grad_())
        return (caught[0],)

    handle = plain.module("model.layers.4.mlp.down_proj").register_forward_pre_hook(catch)
    logits = plain.model(ids).logits
    handle.remove()
    logits[0, -1, plain.tokenizer(" Paris")["input_ids"][0]].backward()
    assert caught[0].grad is not None
    assert close(values["gradient"], caught[0].grad, 1e-4)
