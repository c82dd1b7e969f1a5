"""The page of ``--family`` does what it says: its file and its commands, as printed, for a model that no family maps."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from tests.backend.models.test_family_files import PAGE, save_biogpt

pytestmark = pytest.mark.processes

LOOKS = """
print(rmodel.catalog.mapped, rmodel.catalog.n_layers)
ids = torch.tensor([[3, 1, 4, 1, 5]])

def keep(save_ctx, tensor):
    save_ctx.x = tensor

probe = rmodel.probe_points["layers.1.attn.pattern"].probe(keep)
rmodel.forward(ids, probes=[probe])
print(rmodel.recordings()["layers.1.attn.pattern"].x.shape)
"""


def test_the_page_as_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = PAGE.read_text()
    [file] = re.findall(r"^```toml\n(.*?)^```$", text, flags=re.M | re.S)
    [script] = re.findall(r"^```python\n(.*?)^```$", text, flags=re.M | re.S)
    [command] = re.findall(r"^garcon (launch .*)$", text, flags=re.M)
    (tmp_path / "biogpt.toml").write_text(file)
    save_biogpt(tmp_path / "path" / "to" / "biogpt")
    launch = [sys.executable, "-m", "garcon_jupyter", *command.split()]
    try:
        subprocess.run(launch, cwd=tmp_path, check=True)
        done = subprocess.run(
            [sys.executable, "-c", f"import torch\n{script}{LOOKS}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("True 2\ntorch.Size([1, 4, 5, 5])\n")
        refused = subprocess.run(launch[:-2], cwd=tmp_path, capture_output=True, text=True)
        assert refused.returncode != 0 and "family=" in refused.stderr + refused.stdout
    finally:
        [server] = [server for server in garcon.servers() if "biogpt" in server.name]
        garcon.connect(server.name).shutdown(force=True)
