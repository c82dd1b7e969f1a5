"""The page of ``--loader`` does what it says: its blocks, run as printed in an empty directory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.cli import app

pytestmark = pytest.mark.processes

PAGE = Path(__file__).parents[1] / "docs" / "loader.md"

LOOKS = """
print(rmodel)
print(rmodel._repr_html_())
print(rmodel.probe_points)
for look in (
    lambda: rmodel.lens(ids),
    lambda: rmodel.show_attention(ids),
    lambda: rmodel.patching(ids, ids),
    lambda: rmodel.probe_points["layers.0.mlp.out"],
    lambda: rmodel.probe_points["block"],
    lambda: rmodel.recordings()["module:head.input"],
):
    try:
        look()
    except garcon.GarconError as error:
        print(type(error).__name__, error)
"""


def test_the_page_as_printed(tmp_path: Path, capsys: object) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.M | re.S)
    mine, *rest = blocks
    assert mine.startswith("# mine.py\n")
    (tmp_path / "mine.py").write_text(mine)
    script = "\n".join([*rest, LOOKS])
    [command] = re.findall(r"^python -m (garcon_jupyter launch .*)$", PAGE.read_text(), flags=re.M)
    try:
        subprocess.run([sys.executable, "-m", *command.split()], cwd=tmp_path, check=True)
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = done.stdout
        assert "torch.Size([1, 5, 32]) torch.Size([1, 5, 8])\ntorch.Size([8, 8])\n" in said
        hint = "'module:blocks.0.output'"
        assert f"<RemoteModel mine: Tiny, 5 modules to probe, such as {hint}" in said
        assert f"<probe points of 5 modules, such as {hint}" in said
        assert "0 layers" not in said and "0 probe points" not in said
        assert (
            "PointUnavailable The lens is made of layers.{i}.resid_post, which this model" in said
        )
        assert "PointUnavailable The picture of attention is made of" in said
        assert "PointUnavailable A sweep of patches is made of" in said
        assert "PointUnavailable This model has no layers.0.mlp.out: no family file" in said
        assert "UnknownPoint There is no probe point 'block'. Probe a module, such as" in said
        assert "NoRecording Nothing is recorded at module:head.input. Recorded: module:b" in said
        assert app.main(["points", "mine"]) == 0
        listed = capsys.readouterr().out  # type: ignore[attr-defined]
        assert "module:blocks.*.output" in listed and "0-1" in listed
        assert "This model does not have" not in listed
    finally:
        garcon.connect("mine").shutdown(force=True)
