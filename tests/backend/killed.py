"""Processes that are killed at any moment, two beside each other: ``python -m tests.backend.killed DIRECTORY KILLS``.

Each pair stands for the two ranks of a server: both put down what a request left, then the first says that it is
finished, and would answer. They are killed while they do so; what is found afterwards has to be what one and the same
request left on both, not older than the last that was finished.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from garcon_backend.save_contexts import ledger
from garcon_backend.save_contexts.backups import Backups, Lost
from garcon_backend.save_contexts.contexts import Contexts

POINTS = ("layers.0.mlp.out", "layers.1.mlp.out")


def of_request(number: int) -> dict[str, Any]:
    """What a request saves at a point."""
    large = torch.full((200_000 if number % 3 else 100,), float(number))
    return {"n": number, "small": torch.full((40,), float(number)), "large": large}


class Rank:
    """One of the two: begins where the last finished request left it, and goes on until it is killed."""

    def __init__(self, directory: Path, rank: int, told: int, heard: int) -> None:
        self.directory, self.rank, self.told, self.heard = directory, rank, told, heard
        kept = Backups(directory / f"rank-{rank}", 1 << 30, rank)
        self.finished = kept.finished
        if rank == 0:
            os.write(told, self.finished.to_bytes(8, "little", signed=True))
        else:
            self.finished = int.from_bytes(os.read(heard, 8), "little", signed=True)
        self.contexts = Contexts()
        self.contexts.back_up(kept, self.finished)

    def check(self) -> None:
        """What is there is what the last finished request left, or named."""
        answered = self.directory / "answered"
        last = int(answered.read_text() or 0) if answered.exists() else 0
        assert last <= max(0, self.finished) <= last + 1, (last, self.finished)
        if self.rank == 0:  # nobody waits any more for the one that was not answered
            self._answer(max(0, self.finished))
        seen: Counter[str] = Counter(of_one_unanswered=int(self.finished > last))
        for point in POINTS if self.finished > 0 else ():
            values = vars(self.contexts.open("me", point, None))
            expected = of_request(self.finished)
            expected["total"] = torch.full(
                (10,), self.finished * (self.finished + 1) / 2, dtype=torch.float64
            )
            assert set(values) == set(expected), list(values)
            for name, value in values.items():
                if isinstance(value, Lost):
                    assert name == "large", (name, value)
                    assert str(value).endswith(f"saved by forward {self.finished}"), value
                    seen["named"] += 1
                else:
                    same = torch.equal(torch.as_tensor(value), torch.as_tensor(expected[name]))
                    assert same, (name, value, expected[name])
                    seen["kept"] += 1
        with (self.directory / "seen").open("a") as file:
            file.write("".join(f"{what} {count}\n" for what, count in seen.items()))

    def _answer(self, number: int) -> None:
        answering = self.directory / "answering"
        answering.write_text(str(number))
        answering.replace(self.directory / "answered")

    def work(self) -> None:
        """Request after request; the two wait for each other as ranks do."""
        made, number = self.contexts, max(0, self.finished)
        while True:
            number += 1
            if self.rank == 0:
                os.write(self.told, b"g")  # go
            else:
                os.read(self.heard, 1)
            made.begin()
            for point in POINTS:
                context = made.open("me", point, None)
                for name, value in of_request(number).items():
                    setattr(context, name, value)
                context.total = getattr(context, "total", torch.zeros(10, dtype=torch.float64))
                context.total += number
            made.keep(number, f"forward {number}")
            if self.rank == 0:
                os.read(self.heard, 1)
                made.end(number)
                self._answer(number)
            else:
                os.write(self.told, b"d")  # done
                made.end()
            if number % 5 == 0:
                time.sleep(0.015)  # so that the threads have their turns


def run(directory: Path, rank: int, told: int, heard: int, ready: int) -> None:
    """A process of its own; does not return."""
    try:
        one = Rank(directory, rank, told, heard)
        one.check()
        os.write(ready, b"r")
        one.work()
    except BaseException:  # noqa: BLE001 - it is told, and the one that waits is woken
        traceback.print_exc()
        os.write(ready, b"x")
    finally:
        os._exit(1)


def trial(directory: Path) -> None:
    """Two ranks are killed after a while, one of them a moment before the other."""
    go, done, ready = os.pipe(), os.pipe(), os.pipe()
    pids = []
    for rank, (told, heard) in enumerate(((go[1], done[0]), (done[1], go[0]))):
        pid = os.fork()
        if not pid:
            run(directory, rank, told, heard, ready[1])
        pids.append(pid)
    os.close(ready[1])
    try:
        if random.random() < 0.8:  # else they may be killed while they begin
            for _ in pids:
                assert os.read(ready[0], 1) == b"r", "it ended by itself"
        time.sleep(random.random() * 0.06)
    finally:
        random.shuffle(pids)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        ends = [os.waitpid(pid, 0)[1] for pid in pids]
        for pipe in (*go, *done, ready[0]):
            os.close(pipe)
    assert all(map(os.WIFSIGNALED, ends)), "it ended by itself"


def main(directory: Path, kills: int) -> None:
    """Kill so many pairs."""
    torch.set_num_threads(1)  # and no threads are there when processes fork
    ledger.CAPACITY = 1 << 20  # so that journals begin anew often
    random.seed(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    for _ in range(kills):
        trial(directory)
    seen: Counter[str] = Counter()
    for line in (directory / "seen").read_text().splitlines():
        what, count = line.split()
        seen[what] += int(count)
    print("\n".join(f"{what}: {count}" for what, count in seen.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
