"""The main job, from start to finish: ``make demo``.

    python examples/demo.py             run quickstart.ipynb, and write build/quickstart.html
    python examples/demo.py --model gemma3-270m      the same with another model that Garçon knows by name
    python examples/demo.py --refresh   run quickstart.ipynb and article.ipynb, and keep their outputs in them
    python examples/demo.py --refresh atlas.ipynb    the same of another notebook, which may take half an hour

A real Jupyter kernel runs the notebook, a real server holds the real model. It fails unless the model is
made from the promised file and says that the capital of France is Paris.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from traitlets.config import Config

from garcon_jupyter.model_files import embedded
from garcon_jupyter.model_files.snapshots import server_name

HERE = Path(__file__).resolve().parent
NOTEBOOKS = ("quickstart.ipynb", "article.ipynb")
PAGE = HERE.parent / "build" / "quickstart.html"

MODEL = "smollm2"
"""The model that the notebook launches."""


@dataclass(frozen=True)
class Promised:
    """What a model must be and say; written down here a second time, on purpose.

    Attributes:
        sha256: of the file that it is made from.
        answer: what follows "The capital of France is", by far or, of a small base model, by a little.
    """

    sha256: str
    answer: str


MODELS = {
    MODEL: Promised("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", " Paris"),
    "gemma3-270m": Promised(
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818", " the"
    ),
}

PATIENCE = 3600
"""Seconds that a cell may take whose outputs are kept: an atlas takes minutes."""


class Failed(Exception):
    """The demo did not do what it must."""


def check_model(name: str = MODEL) -> Path:
    """The snapshot of a model, fetched if need be.

    Raises:
        Failed: it was made from another file than the promised one.
    """
    if name not in MODELS:
        raise Failed(f"There is no model {name!r} for it; there are {' and '.join(MODELS)}.")
    snapshot = embedded.fetch(name)
    found = embedded.provenance(snapshot).get("sha256")
    promised = MODELS[name].sha256
    if found != promised:
        raise Failed(f"{snapshot} is made from a file of sha256 {found}, not {promised}.")
    return snapshot


def run(
    notebook: Path, more: Iterable[str] = (), seconds: int = 600, model: str = MODEL
) -> NotebookNode:
    """A notebook with its outputs, after a run from start to finish in a fresh kernel.

    Args:
        more: further cells to run at its end.
        seconds: that one cell may take.
        model: to launch where the notebook launches its own.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised; shows it.
    """
    read = nbformat.read(notebook, as_version=4)
    for cell in read.cells:
        cell.source = cell.source.replace(f"%garcon launch {MODEL}", f"%garcon launch {model}")
    read.cells += [nbformat.v4.new_code_cell(source) for source in more]
    client = NotebookClient(
        read,
        timeout=seconds,
        kernel_name="python3",
        config=Config({"KernelManager": {"transport_encryption": "auto"}}),
        resources={"metadata": {"path": str(notebook.parent)}},
    )
    done = client.execute()
    # The pictures beside the widgets are what a saved notebook shows, so their state is not kept. (nbclient cannot run
    # Output widgets without keeping it itself: findings/output_without_widget_state.sh.)
    done.metadata.pop("widgets", None)
    return done


def check_answer(notebook: NotebookNode, model: str = MODEL) -> None:
    """Raises Failed unless the cell tagged "answer" says what the model must."""
    said = [
        output.get("data", {}).get("text/plain")
        for cell in notebook.cells
        if "answer" in cell.metadata.get("tags", ())
        for output in cell.outputs
    ]
    answer = repr(MODELS[model].answer)
    if said != [answer]:
        raise Failed(f"The notebook says {said}, not {answer}.")


def export(notebook: NotebookNode, page: Path) -> None:
    """Write a notebook as one HTML file that loads nothing from anywhere."""
    libraries = ("require_js", "jquery", "mathjax", "mermaid_js", "mermaid_layout_elk_js")
    exporter = HTMLExporter(**{f"{library}_url": "" for library in libraries})
    body, _ = exporter.from_notebook_node(notebook)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(body, encoding="utf-8")


def refresh(path: Path) -> None:
    """Run a notebook and keep the outputs in its file, without what differs at every run."""
    done = run(path, seconds=PATIENCE)
    for cell in done.cells:
        cell.metadata.pop("execution", None)
    done.metadata["language_info"] = {"name": "python"}
    nbformat.write(done, path)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def demo(page: Path = PAGE, model: str = MODEL) -> NotebookNode:
    """What ``make demo`` runs: the notebook with its outputs, of which it writes the page.

    Raises:
        Failed: the model is not the promised one, or does not say what it must.
    """
    snapshot = check_model(model)
    print("Running examples/quickstart.ipynb …", flush=True)
    began = time.monotonic()
    done = run(HERE / "quickstart.ipynb", model=model)
    check_answer(done, model)
    export(done, page)
    print(
        f"… done in {time.monotonic() - began:.0f} s: the capital of France is{MODELS[model].answer}.\n"
    )
    print(f"Its page, with the pictures:  {page}")
    print("The same, live in JupyterLab: make lab")
    name = server_name(snapshot)
    print(f"The server {name} ends by itself, an hour after its last request; to end it now:")
    print(f"                              {Path(sys.executable).parent / 'garcon'} stop {name}")
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--refresh", nargs="*", metavar="NOTEBOOK", help="run these, and keep their outputs"
    )
    parser.add_argument("--model", default=MODEL, help=f"one of {', '.join(MODELS)}")
    given = parser.parse_args()
    wanted = given.refresh
    if wanted is not None:
        for name in wanted or NOTEBOOKS:
            refresh(HERE / name)
        return 0
    try:
        demo(model=given.model)
    except Failed as error:
        print(f"make demo failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
