"""For folders whose tests are about processes: the models that they name are on servers."""

from __future__ import annotations

import pytest

import garcon_jupyter as garcon


@pytest.fixture
def rmodel(rmodel_served: garcon.RemoteModel) -> garcon.RemoteModel:
    """A fresh session on the small Llama."""
    return rmodel_served


@pytest.fixture
def either(either_served: garcon.RemoteModel) -> garcon.RemoteModel:
    """The same, on one rank and again on two."""
    return either_served


@pytest.fixture
def smollm2(smollm2_served: garcon.RemoteModel) -> garcon.RemoteModel:
    """A fresh session on SmolLM2."""
    return smollm2_served
