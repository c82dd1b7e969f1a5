"""What one stage has and the others need: it comes whole, and only from who has the key."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.distributed.stage_exchange import NotSealed, opened, over_stages, sealed
from tests.backend.ranks import run_on_ranks

CPU = torch.device("cpu")


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (self.file,)


def on_each_rank(trap: str) -> dict[str, Any]:
    from garcon_backend.distributed.mesh import Mesh
    from garcon_backend.distributed.stage_exchange import NotSealed, over_stages
    from garcon_jupyter.errors import CannotTravel
    from garcon_jupyter.wire.launch_spec import Degrees

    mesh = Mesh.form(Degrees(pp=2), "cpu")
    mesh.seal = b"of this server"
    last = mesh.last_stage
    tensor = torch.arange(6.0).view(2, 3).t()
    several = {"a": tensor, "b": [lambda x: x + 1, "word"]}
    came = over_stages(mesh, several if last else None)
    found = {
        "nobody has it": over_stages(mesh, None),
        "tensor": torch.equal(over_stages(mesh, tensor if last else None), tensor),
        "both have one": over_stages(mesh, mesh.rank),
        "several": (torch.equal(came["a"], tensor), came["b"][0](1), came["b"][1]),
    }
    try:
        over_stages(mesh, threading.Lock() if last else None)
    except CannotTravel as error:
        found["does not pickle"] = type(error).__name__
    mesh.seal = f"of {mesh.rank}".encode()
    try:
        over_stages(mesh, Trap(trap) if last else None)
    except NotSealed as error:
        found["of a stranger"] = type(error).__name__
    mesh.leave()
    return found


@pytest.mark.processes
def test_over_stages(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    first, last = run_on_ranks(2, on_each_rank, str(trap))
    for found in (first, last):
        assert found["nobody has it"] is None
        assert found["tensor"] is True
        assert found["both have one"] == 0  # that of the first stage
        assert found["several"] == (True, 2, "word")
        assert found["does not pickle"] == "CannotTravel"
    assert first["of a stranger"] == "NotSealed"
    assert "of a stranger" not in last  # it sent
    assert not trap.exists()


def test_one_process_has_its_own() -> None:
    lock = threading.Lock()
    assert over_stages(Mesh.solo(), lock) is lock


def test_nothing_is_unpickled_that_was_changed(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    data = sealed(b"key", Trap(str(trap)))
    for at in (0, 31, 32, len(data) // 2, len(data) - 1):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(NotSealed):
            opened(b"key", bytes(changed), CPU)
    for wrong in (b"", data[:31], data[:32], data[:-1], data + b"\0"):
        with pytest.raises(NotSealed):
            opened(b"key", wrong, CPU)
    with pytest.raises(NotSealed):
        opened(b"another key", data, CPU)
    assert not trap.exists()
    opened(b"key", data, CPU)  # the trap is one
    assert trap.exists()
