"""One client of the soak: ``python -m tests.soak_client SERVER SESSION SEED DIRECTORY END``.

It sends requests of every kind, also wrong ones and interrupted ones, and compares each answer with what plain
transformers gave. What it did goes line by line into a file, since it may be killed at any moment.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import (
    BadTokens,
    CannotTravel,
    Interrupted,
    ProbeError,
    RemoteModel,
    ServerRestarted,
    UnknownPoint,
)
from tests.oracle import close

OUT = "layers.2.mlp.out"
NEURONS = "layers.1.mlp.post_activation"

BIG = 1_000_000
"""Numbers in a large recording, 4 MB."""


class Wrong(Exception):
    """An answer that is not the reference's."""


def agree(what: str, found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Raise where an answer is wrong."""
    if not close(found, expected, tolerance):
        raise Wrong(f"{what}: {found.flatten()[:3].tolist()} {expected.flatten()[:3].tolist()}")


class Client:
    """One session, and the requests it can send."""

    def __init__(self, server: str, session: str, seed: int, directory: Path) -> None:
        self.random = random.Random(seed)
        self.known: list[dict[str, Any]] = torch.load(directory / "reference.pt")
        self.report = (directory / f"{session}.{os.getpid()}.jsonl").open("w", buffering=1)
        self.session = session
        self.model = self.connected(server)
        self.model.cancel()  # what an earlier process of this session was at may never end
        self.look_back()

    def connected(self, server: str) -> RemoteModel:
        """A connection, also where the server is just being started anew."""
        while True:
            try:
                return garcon.connect(server, session=self.session)
            except ServerRestarted:
                continue

    def tell(self, **what: Any) -> None:
        self.report.write(json.dumps(what) + "\n")

    def look_back(self) -> None:
        """What an earlier process of this session saved, or one of a lost rank, is there and right."""
        while True:
            try:
                recordings = self.model.recordings()
                if OUT in recordings:
                    saved = recordings[OUT]
                    agree("kept", saved.tensor, self.known[saved.which]["out"])
                return
            except ServerRestarted:
                continue

    def run(self, end: float) -> None:
        """Send requests until then."""
        while time.time() < end:
            kind = self.random.choice(KINDS)
            start = time.monotonic()
            try:
                ended = getattr(self, kind)(self.random.randrange(len(self.known))) or "right"
            except ServerRestarted:
                ended = "restarted"
                self.look_back()
            except Exception as error:  # noqa: BLE001 - it is told, and fails the soak
                ended = f"wrong: {type(error).__name__}: {error}"
            self.tell(kind=kind, ended=ended, seconds=time.monotonic() - start)
        self.model.close()

    def probe(self, function: Callable[..., Any], point: str = OUT, **words: Any) -> Any:
        return self.model.probe_points[point].probe(function, **words)

    # -- requests that are right -------------------------------------------------------------

    def forward(self, n: int) -> None:
        known = self.known[n]
        agree("logits", self.model.forward(known["ids"], probes=[]), known["logits"])

    def record(self, n: int) -> None:
        def save(save_ctx: Any, tensor: Tensor) -> None:
            save_ctx.tensor, save_ctx.which = tensor, n

        known = self.known[n]
        self.model.forward(known["ids"], probes=[self.probe(save)], logits="none")
        agree("recorded", self.model.recordings()[OUT].tensor, known["out"])

    def record_shards(self, n: int) -> None:
        def save(save_ctx: Any, tensor: Tensor) -> None:
            save_ctx.tensor = tensor

        known = self.known[n]
        probe = self.probe(save, NEURONS, sharded=True)
        self.model.forward(known["ids"], probes=[probe], logits="last")
        agree("neurons", self.model.recordings()[NEURONS].tensor, known["neurons"])

    def edit(self, n: int) -> None:
        def silence(save_ctx: Any, tensor: Tensor) -> None:
            tensor[:, :, 3] = 0

        known = self.known[n]
        agree("edited", self.model.forward(known["ids"], [self.probe(silence)]), known["edited"])

    def backward(self, n: int) -> None:
        known = self.known[n]
        name = "unembed.weight"
        loss, gradients = self.model.backward(
            known["ids"], lambda logits: logits.square().mean(), probes=[], parameters=[name]
        )
        agree("loss", loss, known["loss"])
        agree("gradient", gradients[name], known["gradient"], 1e-4)

    def generate(self, n: int) -> None:
        known = self.known[n]
        found = self.model.generate(known["ids"], max_new_tokens=8, probes=[], eos_token_id=None)
        if not torch.equal(torch.as_tensor(found.ids), known["generated"]):
            raise Wrong("generated")

    def fetch_much(self, n: int) -> None:
        def save(save_ctx: Any, tensor: Tensor) -> None:
            save_ctx.big = torch.arange(BIG, dtype=torch.float32) + n

        probe = self.probe(save, name="much")
        self.model.forward(self.known[n]["ids"], probes=[probe], logits="none")
        agree("much", self.model.recordings()[OUT, "much"].big, torch.arange(BIG) + float(n))
        self.model.clear_recordings(name="much")

    # -- requests that are wrong -------------------------------------------------------------

    def raise_an_error(self, n: int) -> None:
        expect(ZeroDivisionError, lambda: self.forward_with(n, lambda c, t: 1 / 0))

    def return_a_wrong_shape(self, n: int) -> None:
        expect(ProbeError, lambda: self.forward_with(n, lambda c, t: t[:1, :1]))

    def leave_python(self, n: int) -> None:
        expect(ProbeError, lambda: self.forward_with(n, lambda c, t: sys.exit(1)))

    def bad_tokens(self, n: int) -> None:
        expect(BadTokens, lambda: self.model.forward([[10**6]]))
        expect(UnknownPoint, lambda: self.model.probe_points["layers.99.mlp.out"])

    def save_what_cannot_travel(self, n: int) -> None:
        def save(save_ctx: Any, tensor: Tensor) -> None:
            save_ctx.lock = threading.Lock()

        probe = self.probe(save, name="lock")
        self.model.forward(self.known[n]["ids"], probes=[probe], logits="none")
        recording = self.model.recordings()[OUT, "lock"]
        expect(CannotTravel, lambda: recording.lock)
        self.model.clear_recordings(name="lock")

    def forward_with(self, n: int, function: Callable[..., Any]) -> Any:
        return self.model.forward(self.known[n]["ids"], probes=[self.probe(function)])

    # -- requests that are interrupted -------------------------------------------------------

    def interrupt_a_probe(self, n: int) -> str:
        def endless(save_ctx: Any, tensor: Tensor) -> None:
            while True:
                time.sleep(0.001)

        return self.interrupted(lambda: self.forward_with(n, endless), 0.3)

    def interrupt_a_forward(self, n: int) -> str:
        return self.interrupted(lambda: self.forward(n), 0.02)

    def interrupt_a_generation(self, n: int) -> str:
        long = {"max_new_tokens": 60, "eos_token_id": None, "probes": []}
        return self.interrupted(lambda: self.model.generate(self.known[n]["ids"], **long), 0.2)

    def interrupted(self, run: Callable[[], Any], longest: float) -> str:
        """Run something that is interrupted at a random moment, and perhaps too late."""
        delay = self.random.uniform(0, longest)
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        start = time.monotonic()
        try:
            try:
                timer.start()
                run()
            finally:
                timer.join()  # where it was too late it lands here
                time.sleep(0.001)
        except Interrupted:
            self.tell(interrupt=time.monotonic() - start - delay)
            return "interrupted"
        except KeyboardInterrupt as error:
            if isinstance(error.__context__, ServerRestarted):
                raise error.__context__ from None
        return "right"


def expect(kind: type[BaseException], run: Callable[[], Any]) -> None:
    """Raise where the typed error does not come."""
    try:
        run()
    except kind:
        return
    raise Wrong(f"there was no {kind.__name__}")


KINDS = [
    *("forward", "record", "record_shards", "edit", "backward", "generate", "fetch_much") * 2,
    *("raise_an_error", "return_a_wrong_shape", "leave_python", "bad_tokens"),
    *("save_what_cannot_travel", "interrupt_a_probe", "interrupt_a_forward"),
    "interrupt_a_generation",
]

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    server, session, seed, directory, end = sys.argv[1:]
    Client(server, session, int(seed), Path(directory)).run(float(end))
