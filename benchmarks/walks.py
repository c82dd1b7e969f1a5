"""How often a request goes from one room to another: what a reader who follows it has to walk.

    python -m benchmarks.walks

A forward with one probe, on the small Llama, is recorded by a profiler: on the client around the call, on rank 0 from the
message to the answer. A *move* is a call into another room than the one that was called into before; a loop, such as the
callbacks of a pickle, is walked once, as it is read. What :mod:`garcon_backend.libraries` wraps is a call of a library, which is no
walk.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

import garcon_jupyter as garcon

HALVES = ("garcon_jupyter", "garcon_backend")
POINT = "layers.1.mlp.post_activation"

ON_THE_RANK = f"""
import sys
from garcon_backend.kernel.kernel import GarconKernel

def room(frame):
    parts = frame.f_globals.get("__name__", "").split(".")
    return "" if parts[1:2] == ["libraries"] or parts[0] not in {HALVES!r} else ".".join(parts[:2])

answer = GarconKernel._answer
GarconKernel.walked = []

def recorded(self, item):
    walked = []
    def note(frame, event, arg):
        if event == "call" and (here := room(frame)):
            walked.append(here)
    sys.setprofile(note)
    try:
        return answer(self, item)
    finally:
        sys.setprofile(None)
        GarconKernel.walked.append(walked)

GarconKernel._answer = recorded
"""

TOLD = """
import json
from garcon_backend.kernel.kernel import GarconKernel
print(json.dumps(GarconKernel.walked[-1]))
"""


def room(frame: FrameType) -> str:
    """The room that a frame runs in; "" where it is not ours."""
    parts = str(frame.f_globals.get("__name__", "")).split(".")
    return ".".join(parts[:2]) if parts[0] in HALVES else ""


def walked(call: Callable[[], Any]) -> list[str]:
    """The rooms that a call goes through on this thread."""
    rooms: list[str] = []

    def note(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call" and (here := room(frame)):
            rooms.append(here)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return rooms


def route(rooms: list[str], longest: int = 6) -> list[str]:
    """The rooms in the order in which a reader comes through them: each stay once, and each loop once."""
    stays = [name for name, _ in groupby(rooms)]
    for length in range(1, longest + 1):
        once: list[str] = []
        for name in stays:
            once.append(name)
            while once[-length:] == once[-2 * length : -length]:
                del once[-length:]
        stays = once
    return stays


def told(path: list[str]) -> str:
    """A walk in words."""
    return f"{len(set(path))} rooms, {len(route(path)) - 1} moves"


def of_a_forward(model: garcon.RemoteModel) -> dict[str, list[str]]:
    """The rooms of both sides. The server's kernel stays wrapped: it is to be ended afterwards."""
    tokens = model._tokens([[3, 4, 5, 6]])
    probes = [model.probe_points[POINT].probe(_save)]
    model.forward(tokens, probes)
    client = walked(lambda: model.forward(tokens, probes))
    model.run_on_ranks(ON_THE_RANK)
    model.forward(tokens, probes)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        model.run_on_ranks(TOLD)
    return {"client": client, "rank 0": json.loads(said.getvalue().split("] ", 1)[-1])}


def _save(save_ctx: Any, tensor: Any) -> None:
    save_ctx.tensor = tensor


def main() -> None:
    """Measure both sides."""
    from tests import checkpoints

    with tempfile.TemporaryDirectory() as folder:
        model = garcon.launch_and_connect(checkpoints.make("llama", Path(folder)), "walks")
        try:
            found = of_a_forward(model)
        finally:
            model.shutdown(force=True)
    for side, rooms in found.items():
        print(f"forward with one probe, {side}: {told(rooms)}")
        print("  " + " > ".join(stay.split(".")[-1] for stay in route(rooms)))


if __name__ == "__main__":
    main()
