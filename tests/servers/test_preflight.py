"""What is known to fail is refused in the notebook; of the process that imported meanwhile nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.servers.server import log_file, own_directory


def refused(path: Path, kind: type[garcon.GarconError], **degrees: int) -> str:
    with pytest.raises(kind) as error:
        garcon.launch(path, name="never", progress=lambda line: None, **degrees)
    assert not log_file("never").exists() and not own_directory("never").exists()
    return str(error.value)


@pytest.mark.processes
def test_degrees_that_do_not_divide(llama_path: Path) -> None:
    said = refused(llama_path, garcon.BadDegrees, tp=4)
    assert "tp=4 does not divide the model: it has 6 heads, 2 key/value heads" in said
    assert "Degrees that do: 1, 2." in said
    assert "Use pp up to 4." in refused(llama_path, garcon.BadDegrees, pp=5)
    assert "degree" in refused(llama_path, garcon.BadDegrees, tp=0)
