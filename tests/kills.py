"""Ranks that are killed at any moment: ``python -m tests.kills --kills 50 --tp 3`` (``make kills``).

A session records in every way there is: small and large values, lists that grow, sums in place, shards, gradients,
states of recorders, runs over data; it clears some and edits the model meanwhile. Then a rank is killed, between 0
and 2 seconds after an answer or in the midst of the next request. Afterwards each value has to be what the last
finished request left, as plain transformers computes it, or its loss is told by name.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import NoRecording, RemoteModel, Server, ServerRestarted
from garcon_jupyter.recorders import TopK
from garcon_jupyter.servers import control, registry
from garcon_jupyter.servers.server import log_file, own_directory
from tests import checkpoints
from tests.oracle import Plain, close

OUT = "layers.2.mlp.out"
NEURONS = "layers.1.mlp.post_activation"
FIRST = "layers.0.mlp.post_activation"

SIZES = {"num_key_value_heads": 3, "intermediate_size": 96}
"""Three ranks divide it."""

LARGE = 2_000_000
"""Numbers in a large value: 8 MB."""

LOST = (
    r"lost with rank \d+: .*saved by (forward|backward|generate) \d+, which ended at \d\d:\d\d:\d\d"
)

Key = Any
Expected = dict[Key, dict[str, Any]]
"""What is saved: by point, or point and name; by attribute."""


class Wrong(Exception):
    """Something is not what the last finished request left, and nobody said so."""


class Hammer:
    """One session, what it must hold, and the ranks that are killed.

    Attributes:
        seen: how many values were kept, and how many were named as lost.
    """

    def __init__(self, server: Server, plain: Plain, seed: int = 0) -> None:
        self.server, self.plain = server, plain
        self.random = random.Random(seed)
        self.model: RemoteModel = garcon.connect(server.name, session="hammer")
        self.expected: Expected = {}
        self.seen: Counter[str] = Counter()
        self.kinds: list[Callable[[], None]] = [
            *(self.small, self.grow, self.shards, self.recorder, self.gradient, self.large),
            *(self.named, self.generate, self.edit, self.clear, self.run),
        ]

    def ids(self) -> list[list[int]]:
        """Fresh tokens."""
        return [[0, *(self.random.randrange(3, 250) for _ in range(5))] for _ in range(2)]

    def holds(self, key: Key) -> dict[str, Any]:
        return self.expected.setdefault(key, {})

    # -- what is recorded ------------------------------------------------------------------------

    def small(self) -> None:
        """A tensor, and plain values."""
        ids, n = self.ids(), self.random.random()

        def keep(save_ctx: Any, tensor: Tensor) -> None:
            save_ctx.tensor, save_ctx.n, save_ctx.words = tensor, n, ["a", {"n": (n, None)}]

        self.model.forward(ids, probes=[self.model.probe_points[OUT].probe(keep)], logits="none")
        value = self.plain.output("model.layers.2.mlp", ids)
        self.holds(OUT).update(tensor=value, n=n, words=["a", {"n": (n, None)}])

    def grow(self) -> None:
        """A list, and a sum in place."""
        ids = self.ids()

        def more(save_ctx: Any, tensor: Tensor) -> None:
            if not hasattr(save_ctx, "rows"):
                save_ctx.rows, save_ctx.total = [], torch.zeros(tensor.shape[-1])
            save_ctx.rows.append(len(save_ctx.rows))
            save_ctx.total += tensor.sum((0, 1))

        probe = self.model.probe_points[OUT].probe(more, name="more")
        self.model.forward(ids, probes=[probe], logits="last")
        value = self.plain.output("model.layers.2.mlp", ids).sum((0, 1))
        held = self.holds((OUT, "more"))
        held["total"] = held.get("total", 0) + value
        held["rows"] = list(range(len(held.get("rows", ())) + 1))

    def shards(self) -> None:
        """What each rank has of a value."""
        ids = self.ids()

        def keep(save_ctx: Any, tensor: Tensor) -> None:
            save_ctx.tensor = tensor

        probe = self.model.probe_points[NEURONS].probe(keep, sharded=True)
        self.model.forward(ids, probes=[probe])
        self.holds(NEURONS)["tensor"] = self.plain.neurons(1, ids)

    def recorder(self) -> None:
        """A state that grows over requests."""
        ids = self.ids()
        self.model.forward(ids, probes=[self.model.probe_points[FIRST].probe(TopK(3))])
        self.holds(FIRST)["topk"] = self._largest(FIRST, [self.plain.neurons(0, ids)])

    def run(self) -> None:
        """The same over data."""
        rows = [self.ids()[0] for _ in range(6)]
        probe = self.model.probe_points[FIRST].probe(TopK(3), name="run")
        self.model.run(rows, [probe], batch_tokens=12, fresh=True, show=False)
        values = [self.plain.neurons(0, [row]) for row in rows]
        self.expected.pop((FIRST, "run"), None)
        self.holds((FIRST, "run"))["topk"] = self._largest((FIRST, "run"), values)

    def _largest(self, key: Key, values: list[Tensor]) -> Tensor:
        new = torch.cat([value.flatten(0, 1) for value in values])
        if "topk" in self.expected.get(key, {}):
            new = torch.cat([self.expected[key]["topk"].T, new])
        return new.topk(3, 0).values.T

    def gradient(self) -> None:
        """What is read on the way back."""
        ids = self.ids()

        def keep(save_ctx: Any, tensor: Tensor) -> None:
            save_ctx.gradient = tensor

        probe = self.model.probe_points[OUT].probe(keep, grad=True, name="grad")
        self.model.backward(ids, lambda logits: logits.square().mean(), probes=[probe])
        caught: list[Tensor] = []
        with (
            self.plain.hooked("model.layers.2.mlp", lambda out: caught.append(out)),
            torch.enable_grad(),
        ):
            embedded = self.plain.model.get_input_embeddings()(torch.tensor(ids)).requires_grad_()
            loss = self.plain.model(inputs_embeds=embedded).logits.square().mean()
            (value,) = torch.autograd.grad(loss, caught)
        self.holds((OUT, "grad"))["gradient"] = value

    def large(self) -> None:
        """What is written after the answer."""
        number = self.random.random()

        def keep(save_ctx: Any, tensor: Tensor) -> None:
            save_ctx.large, save_ctx.beside = tensor.new_full((LARGE,), number), number

        probe = self.model.probe_points["layers.3.resid_post"].probe(keep)
        self.model.forward(self.ids(), probes=[probe], logits="none")
        large = torch.full((LARGE,), number)
        self.holds("layers.3.resid_post").update(large=large, beside=number)

    def named(self) -> None:
        """Contexts of several points in one request, on all stages."""
        ids = self.ids()

        def keep(save_ctx: Any, tensor: Tensor) -> None:
            save_ctx.mean = tensor.mean()

        self.model.forward(
            ids, probes=self.model.probe_points["layers.*.mlp.out"].probes(keep, name="mean")
        )
        for layer in range(4):
            value = self.plain.output(f"model.layers.{layer}.mlp", ids).mean()
            self.holds((f"layers.{layer}.mlp.out", "mean"))["mean"] = value

    def generate(self) -> None:
        """A count of steps."""

        def count(save_ctx: Any, tensor: Tensor) -> None:
            save_ctx.steps = save_ctx.here.step + 1

        probe = self.model.probe_points[OUT].probe(count, name="steps")
        self.model.generate(self.ids(), max_new_tokens=3, eos_token_id=None, probes=[probe])
        self.holds((OUT, "steps"))["steps"] = 3

    def edit(self) -> None:
        """Nothing is saved."""

        def silence(save_ctx: Any, tensor: Tensor) -> None:
            tensor[:, :, 3] = 0

        self.model.forward(self.ids(), probes=[self.model.probe_points[NEURONS].probe(silence)])

    def clear(self) -> None:
        """Some are no more."""
        if self.expected:
            key = self.random.choice(list(self.expected))
            point = key if isinstance(key, str) else key[0]
            self.model.clear_recordings(point)
            for key in [k for k in self.expected if point in (k, k[0])]:
                del self.expected[key]

    # -- kills -----------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        return [rank["pid"] for rank in registry.find(self.server.name).facts["ranks"]]

    def kill(self, rank: int | None = None) -> None:
        """Kill a rank; it does not count towards those after which a server gives up."""
        (own_directory(self.server.name) / "losses.json").unlink(missing_ok=True)
        pids = self.pids()
        os.kill(pids[self.random.randrange(len(pids)) if rank is None else rank], signal.SIGKILL)

    def after(self, seconds: float, rank: int | None = None) -> None:
        """Kill a rank so long after the answer of the last request."""
        time.sleep(seconds)
        self.kill(rank)
        self.check()

    def amid(self, rank: int | None = None) -> None:
        """Kill a rank while a request changes what was saved."""
        reached = threading.Event()

        def act() -> None:
            other = garcon.connect(self.server.name)
            while not other.status()["running"]:
                time.sleep(0.01)
            time.sleep(self.random.random() * 0.2)
            reached.set()
            self.kill(rank)

        def change(save_ctx: Any, tensor: Tensor) -> None:
            for value in vars(save_ctx).values():
                if isinstance(value, Tensor):
                    value.add_(1)
                elif isinstance(value, list):
                    value.append("never")
            save_ctx.never = 1
            time.sleep(60)

        killer = threading.Thread(target=act)
        killer.start()
        probes = [
            self.model.probe_points[OUT].probe(change, name=name) for name in (None, "more", "grad")
        ]
        try:
            self.model.forward(self.ids(), probes=probes)
        except ServerRestarted:
            pass
        else:
            raise Wrong("a request outlived its rank")
        finally:
            killer.join()
        self.check()

    # -- what is there afterwards ----------------------------------------------------------------

    def check(self) -> None:
        """Everything is what it must be, or named; what was lost is cleared.

        Raises:
            Wrong: something is not.
        """
        while True:
            try:
                found = self.model.recordings()
                break
            except ServerRestarted:  # it was sent at that moment
                continue
        if set(found) != set(self.expected):
            raise Wrong(
                f"there are {sorted(map(str, found))}, not {sorted(map(str, self.expected))}"
            )
        for key, values in list(self.expected.items()):
            if set(found[key].keys()) != set(values):
                raise Wrong(f"{key}: {found[key].keys()}, not {list(values)}")
            lost = [
                name for name, value in values.items() if self._is_lost(found[key], name, value)
            ]
            self.seen["kept"] += len(values) - len(lost)
            self.seen["named"] += len(lost)
            if lost:
                point, name = (key, None) if isinstance(key, str) else key
                self.model.clear_recordings(point, name)
                for other in [k for k in self.expected if k == key or (not name and k[0] == point)]:
                    del self.expected[other]

    def _is_lost(self, recording: Any, name: str, expected: Any) -> bool:
        try:
            value = recording.handle(name).fetch()
        except NoRecording as error:
            if not re.search(LOST, str(error)) or not re.search(LOST, repr(recording)):
                raise Wrong(f"{recording!r}: {error}") from None
            return True
        value = value if isinstance(value, Tensor) else getattr(value, "values", value)
        same = close(value, expected, 1e-4) if isinstance(expected, Tensor) else value == expected
        if not same:
            raise Wrong(f"{recording!r}: {name} is {value}, not {expected}")
        return False

    def trial(self) -> None:
        """Some requests in quick succession, and a kill."""
        for _ in range(self.random.randrange(1, 8)):
            self.random.choice(self.kinds)()
        if self.random.random() < 0.25:
            self.amid()
        else:
            self.after(2 * self.random.random())


def main(words: list[str]) -> int:
    """Kill ranks of one server; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    for degree in ("tp", "pp", "dp"):
        parser.add_argument(f"--{degree}", type=int, default=1)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9, help="after which no kill begins")
    asked = parser.parse_args(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="garcon-kills-") as name:
        os.environ["GARCON_RUNTIME"] = f"{name}/runtime"
        path = checkpoints.make("llama", Path(name) / "llama", **SIZES)
        degrees = {"tp": asked.tp, "pp": asked.pp, "dp": asked.dp}
        server = garcon.launch(path, "hammer", progress=lambda line: None, **degrees)
        try:
            hammer = Hammer(server, Plain(path), asked.seed)
            for number in range(asked.kills):
                if time.monotonic() - begun > asked.seconds:
                    break
                hammer.trial()
                told = ", ".join(f"{count} {what}" for what, count in hammer.seen.items())
                print(f"{degrees}: {number + 1} kills: {told}", flush=True)
        except Wrong as error:
            log = log_file("hammer").read_text()
            print(f"WRONG: {error}\n{log[-3000:]}", flush=True)
            return 1
        finally:
            control.kill(registry.find("hammer"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
