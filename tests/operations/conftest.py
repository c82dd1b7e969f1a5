"""A door to the small Llama, in this process."""

from __future__ import annotations

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.operations.operation import Door


@pytest.fixture
def door(rmodel: garcon.RemoteModel) -> Door:
    """A door to a fresh session on the small Llama."""
    return Door(rmodel)
