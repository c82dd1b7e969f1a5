"""How much memory there is, against what another library says."""

from __future__ import annotations

import psutil

from garcon_backend.process.memory import available_bytes


def test_available_memory_is_what_the_system_says() -> None:
    there_is = available_bytes("cpu")
    assert 0 < there_is <= psutil.virtual_memory().total
    assert there_is <= psutil.virtual_memory().available * 1.2
