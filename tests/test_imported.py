"""A module that is still being imported is not looked into, whoever imports it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

SLOW = """
import os, time
print("begun", flush=True)
while not os.path.exists({done!r}):
    time.sleep(0.005)
class Tensor: pass
def get_ipython(): return None
"""


def python(code: str, *arguments: str) -> str:
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["torch", "IPython"])
def test_half_of_a_module_is_not_seen(name: str, tmp_path: Path) -> None:
    """Whatever packs a question or shows an error while another thread is in the midst of that import."""
    done = tmp_path / "done"
    (tmp_path / f"{name}.py").write_text(SLOW.format(done=str(done)))
    printed = python(
        """
        import importlib, pathlib, sys, threading
        from garcon_jupyter import errors, imported
        from garcon_jupyter.connection import progress
        from garcon_jupyter.wire import codec
        path, name, done = sys.argv[1:]
        sys.path.insert(0, path)
        thread = threading.Thread(target=importlib.import_module, args=[name])
        thread.start()
        while name not in sys.modules:
            pass
        half = sys.modules[name]
        assert not hasattr(half, "Tensor")
        assert imported.whole(name) is None and imported.shell() is None
        payload, _ = codec.dumps({"a": [1, slice(2)]})
        assert codec.loads(payload) == {"a": [1, slice(2)]}
        assert errors.file_shown("cell.py") == 'File "cell.py"' and not progress._in_a_notebook()
        pathlib.Path(done).touch()
        thread.join()
        assert imported.whole(name) is half
        assert imported.whole("no.such.module") is None
        """,
        str(tmp_path),
        name,
        str(done),
    )
    assert printed == "begun\n"
