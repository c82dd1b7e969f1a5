#!/usr/bin/env bash
# A notebook with an Output widget cannot be run by nbclient without keeping the state of widgets.
#
# What a user would expect: `store_widget_state=False`, for notebooks whose saved files shall not hold megabytes of state, changes what is saved.
# What happens: as soon as something is printed into an ipywidgets.Output, the run ends with a KeyError of the widget's number; the
# code that collects such output writes into the state that is not kept.
# Exits non-zero if that is no longer so.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q nbclient==0.11.0 ipywidgets==8.1.9 ipykernel==7.4.0
"$work/venv/bin/python" -W ignore - <<'PY' 2> "$work/log"
from importlib.metadata import version

import nbclient
import nbformat

print("nbclient", version("nbclient"), "ipywidgets", version("ipywidgets"), flush=True)
SOURCE = "import ipywidgets\nplace = ipywidgets.Output()\nwith place:\n    print('hello')\nplace"


def run(keep):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SOURCE)])
    nbclient.NotebookClient(notebook, store_widget_state=keep).execute()


run(True)
print("with the state of widgets: it runs")
try:
    run(False)
except KeyError as error:
    print("without it: KeyError of a key of", len(error.args[0]), "characters")
else:
    raise SystemExit("it runs without it as well")
PY
