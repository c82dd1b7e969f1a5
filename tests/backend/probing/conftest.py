"""A small Llama as we serve it and as transformers has it, which dictionaries are put into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from tests import checkpoints
from tests.backend.probing.probes import IDS
from tests.dictionaries.several_by_hand import PlainModel


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def exact(path: Path) -> Iterator[garcon.RemoteModel]:
    """The model in float64, in which dictionaries compute as well."""
    found = garcon.connect(open_here(path, dtype="float64"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def width(exact: garcon.RemoteModel) -> int:
    return exact.catalog.sizes["D"]


@pytest.fixture(scope="module")
def plain(path: Path) -> PlainModel:
    return PlainModel(path, IDS)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[garcon.RemoteModel]:
    """A model as wide as the dictionaries that libraries made."""
    sizes = {"hidden_size": 16, "head_dim": 8, "num_attention_heads": 2, "intermediate_size": 12}
    path = checkpoints.make("llama", tmp_path_factory.mktemp("narrow"), **sizes)
    found = garcon.connect(open_here(path))
    yield found
    found.close()
