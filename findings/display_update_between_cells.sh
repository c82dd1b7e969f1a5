#!/usr/bin/env bash
# nbclient drops display updates that a kernel sends while no cell runs.
#
# A picture that is drawn by a thread is updated by its display id (IPython's handle.update, the message
# update_display_data). JupyterLab shows such an update whenever it comes, also after the cell has ended. Somebody who
# executes the same notebook by nbclient (nbconvert --execute, papermill) would expect the saved notebook to hold the last
# update that was sent while it was executed. Instead nbclient only reads messages whose parent is the cell that runs: an
# update between two cells, or after the last one, is read and thrown away, and the output stays as it was when its cell
# ended. An update sent while a later cell runs is taken.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
python3 -m venv "$directory/venv"
"$directory/venv/bin/pip" install -q nbclient==0.11.0 nbformat==5.10.4 ipykernel==7.4.0 ipython==9.8.0
cd "$directory"
"$directory/venv/bin/python" - <<'PYTHON'
import sys
import time
from importlib.metadata import version

import nbformat
from nbclient import NotebookClient

print(*(f"{name} {version(name)}" for name in ("nbclient", "ipykernel", "ipython")))

SHOW = """
import threading, time
from IPython.display import display
{name} = display("half drawn", display_id=True)
def finish(handle):
    time.sleep({seconds})
    handle.update("whole")
threading.Thread(target=finish, args=({name},)).start()
"""
cells = [
    SHOW.format(name="during", seconds=0.7),
    "time.sleep(1.5)  # the first one is updated while this cell runs",
    SHOW.format(name="between", seconds=0.7),
    "'this cell begins after the update of the one before'",
    SHOW.format(name="after", seconds=0.7),
]
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


def rest(cell, cell_index, **_):
    """The kernel lives on between cells, and after the last, for longer than any update takes."""
    if cell_index >= 2:
        time.sleep(2)


NotebookClient(notebook, kernel_name="python3", on_cell_executed=rest).execute()
saved = {
    name: notebook.cells[place].outputs[0].data["text/plain"]
    for name, place in (("during a later cell", 0), ("between two cells", 2), ("after the last cell", 4))
}
for when, what in saved.items():
    print(f"updated {when}: saved as {what}")
expected = {
    "during a later cell": "'whole'",
    "between two cells": "'half drawn'",
    "after the last cell": "'half drawn'",
}
sys.exit(saved != expected)
PYTHON
echo "as described"
