"""A notebook of a real model that is executed where nobody looks: what it saves is whole."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import nbconvert
import nbformat
import pytest
from nbclient import NotebookClient

CELLS = [
    'import garcon_jupyter as garcon\nrmodel = garcon.connect("tiny")',
    'rmodel.lens("Hello, world, a longer text")',
    'rmodel.show_attention("Hello, world, a longer text")',
    "rmodel.patching([[0, 40, 41, 42, 99]], [[0, 40, 77, 42, 99]], (17, 23))",
]


@pytest.mark.usefixtures("llama_server")
def test_pictures_of_every_cell_are_whole_and_of_the_last_one_too() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), str(root / "backend")])
    client = NotebookClient(notebook, timeout=120, kernel_name="python3")
    client.execute(env={**os.environ, "PYTHONPATH": path})
    html, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    stills = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    pictures = [base64.b64decode(still).decode() for still in stills]
    assert len(pictures) == 3
    for picture in pictures:
        assert 'class="missing"' not in picture and "not finished" not in picture
        assert "loaded" not in picture  # of the overview, that not all layers are
    assert not any(o.output_type == "stream" for cell in notebook.cells for o in cell.outputs)
