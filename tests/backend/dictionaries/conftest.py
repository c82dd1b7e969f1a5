from __future__ import annotations

from collections.abc import Iterator

import pytest

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from tests import checkpoints


@pytest.fixture(scope="package")
def gemma2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[garcon.RemoteModel]:
    """A small random Gemma 2, whose sub-blocks have a norm behind them."""
    model = garcon.connect(open_here(checkpoints.make("gemma2", tmp_path_factory.mktemp("gemma2"))))
    yield model
    model.close()
