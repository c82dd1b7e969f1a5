"""Small checkpoints of one architecture: two sets of weights, one of them under two labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import checkpoints


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory, llama_path: Path) -> dict[str, Path]:
    """Paths by label; "again" is "step0" once more."""
    later = checkpoints.make("llama", tmp_path_factory.mktemp("later"), seed=1)
    return {"step0": llama_path, "step 1": later, "again": llama_path}
