"""The soak: ``python -m tests.soak --seconds 1200`` (``make soak``).

Clients of all kinds, in processes of their own, use two servers at once, for twenty minutes. They are killed
and come back, consoles come and go, and every few minutes a rank is killed or stopped. Every answer is compared
with plain transformers. Meanwhile memory, descriptors, threads and files of the servers are sampled: they have
to stay what they are.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from jupyter_client.blocking.client import BlockingKernelClient

import garcon_jupyter as garcon
from garcon_jupyter import ServerRestarted
from garcon_jupyter.connection.connection_file import process_lives
from garcon_jupyter.servers import control, registry
from garcon_jupyter.servers.server import own_directory, shared_directory
from tests import checkpoints
from tests.oracle import Plain, close

PROMPTS = [
    [[0, 40, 41, 42, 99, 7], [0, 12, 200, 13, 13, 5]],
    [[0, 5, 6, 7]],
    [[0, *range(20, 60)], [0, *range(90, 130)], [0, *range(200, 240)]],
]

CLIENTS = {"soak-one": ["anna", "bert"], "soak-two": ["carl", "dora"]}
"""Sessions on each server: of one process, and of two tensor-parallel ranks."""

GROWTH = 32 << 20
"""Bytes by which a process may grow from the second quarter of its time to the last."""

MORE_DESCRIPTORS = 8
"""By how many descriptors, and threads, it may: on a busy machine some clients connect late."""

SILENT = 180.0
"""Seconds without an answer after which a client hangs."""

RECOVERY = 180.0
"""Seconds in which a server has to be right again after a fault, with all that a busy machine adds."""


@dataclass
class Sample:
    """What a server uses at a moment; bytes are of all its processes."""

    time: float
    pids: tuple[int, ...]
    rss: int
    uss: int
    descriptors: int
    threads: int
    shared: int
    files: int


@dataclass
class Course:
    """What was done and seen."""

    faults: Counter[str] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def reference(path: Path) -> list[dict[str, Any]]:
    """What plain transformers answers to each prompt."""
    plain = Plain(path)
    head = plain.module("lm_head")
    known = []
    for prompt in PROMPTS:
        ids = torch.tensor(prompt)
        head.weight.requires_grad_(True)
        loss = plain.model(ids).logits.square().mean()
        loss.backward()
        gradient, head.weight.grad = head.weight.grad, None
        head.weight.requires_grad_(False)

        def silence(out: torch.Tensor) -> torch.Tensor:
            out = out.clone()
            out[:, :, 3] = 0
            return out

        with plain.hooked("model.layers.2.mlp", silence):
            edited = plain.logits(ids)
        known.append(
            {
                "ids": prompt,
                "logits": plain.logits(ids),
                "out": plain.output("model.layers.2.mlp", ids),
                "neurons": plain.neurons(1, ids),
                "edited": edited,
                "loss": loss.detach(),
                "gradient": gradient,
                "generated": plain.model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=8,
                    do_sample=False,
                    eos_token_id=None,
                    pad_token_id=0,
                ),
            }
        )
    return known


class Soak:
    """Directs clients and faults, and watches the servers."""

    def __init__(self, seconds: float, seed: int, directory: Path) -> None:
        self.seconds, self.directory = seconds, directory
        self.random = random.Random(seed)
        self.course = Course()
        self.clients: dict[str, subprocess.Popen[bytes]] = {}
        path = checkpoints.make("llama", directory / "llama")
        self.known = reference(path)
        torch.save(self.known, directory / "reference.pt")
        self.servers = {
            "soak-one": garcon.launch(path, "soak-one", progress=_silent),
            "soak-two": garcon.launch(path, "soak-two", tp=2, progress=_silent),
        }

    def run(self) -> None:
        """From the first client to the last."""
        self.start = time.monotonic()
        self.end = self.start + self.seconds
        due = {
            self._visit_by_console: self._times(at_least=2, every=20),
            self._kill_a_client: self._times(at_least=1, every=45),
            # Not so often that a server has to take it for a restart loop.
            self._hurt: self._times(at_least=1, every=240),
        }
        while time.monotonic() < self.end:
            self._keep_clients()
            self._sample()
            for act, times in due.items():
                if times and time.monotonic() - self.start > times[0]:
                    times.pop(0)
                    act()
            time.sleep(min(2.0, self.seconds / 40))
        self._part()

    def _times(self, at_least: int, every: float) -> list[float]:
        """When to do something, in seconds from the start."""
        often = max(at_least, int(self.seconds // every))
        return [self.seconds * (n + 0.5) / often for n in range(often)]

    # -- clients -----------------------------------------------------------------------------

    def _keep_clients(self) -> None:
        """Start who is not there, and look whether all go on."""
        left = self.end - time.monotonic()
        for server, sessions in CLIENTS.items():
            for session in sessions:
                client = self.clients.get(session)
                if client and client.poll() is None:
                    self._check_goes_on(session, client)
                    continue
                if client and client.returncode not in (0, -signal.SIGKILL):
                    self._problem(self._end_of(session, client))
                if left < 10 and client:
                    continue
                words = [server, session, str(self.random.randrange(10**6)), str(self.directory)]
                end = str(time.time() + left)
                command = [sys.executable, "-m", "tests.soak_client", *words, end]
                with (self.directory / f"{session}.log").open("ab") as log:
                    self.clients[session] = subprocess.Popen(command, stdout=log, stderr=log)

    def _end_of(self, session: str, client: subprocess.Popen[bytes]) -> str:
        """How a client ended, in its own last words."""
        log = (self.directory / f"{session}.log").read_text()
        return f"client {session} ended with {client.returncode}: {log[-1000:]}"

    def _check_goes_on(self, session: str, client: subprocess.Popen[bytes]) -> None:
        file = self.directory / f"{session}.{client.pid}.jsonl"
        if file.exists() and time.time() - file.stat().st_mtime > SILENT:
            self._problem(f"client {session} hangs")
            client.kill()

    def _kill_a_client(self) -> None:
        session = self.random.choice(list(self.clients))
        self.clients[session].kill()
        self.course.faults["client killed, resumed its session"] += 1

    def _visit_by_console(self) -> None:
        """A console attaches, asks something, and leaves without a word."""
        console = BlockingKernelClient(
            connection_file=str(self.random.choice(list(self.servers.values())).file)
        )
        console.load_connection_file()
        console.start_channels()
        try:
            console.wait_for_ready(timeout=30)
            reply = console.execute_interactive("assert model and 1 + 1", timeout=30)
            if reply["content"]["status"] != "ok":
                self._problem(f"a console got {reply['content']}")
        except (TimeoutError, RuntimeError) as error:
            self._problem(f"a console waited in vain: {error}")
        finally:
            console.stop_channels()
        self.course.faults["console came and left"] += 1

    def _part(self) -> None:
        """Wait for the clients' own end."""
        for session, client in self.clients.items():
            try:
                if client.wait(SILENT) not in (0, -signal.SIGKILL):
                    self._problem(self._end_of(session, client))
            except subprocess.TimeoutExpired:
                self._problem(f"client {session} hangs at the end")
                client.kill()
        self._sample()

    # -- servers -----------------------------------------------------------------------------

    def _hurt(self) -> None:
        """Kill or stop a rank; then the server has to be right again."""
        name = list(self.servers)[(len(self.course.recoveries) + 1) % len(self.servers)]  # in turn
        rank = self.random.choice(registry.find(name).facts["ranks"])
        number = self.random.choice([signal.SIGKILL, signal.SIGSTOP])
        os.kill(rank["pid"], number)
        start = time.monotonic()
        self.course.faults[f"rank hit by {number.name}"] += 1
        while True:
            try:
                model = garcon.connect(name)
                right = close(
                    model.forward(self.known[0]["ids"], probes=[]), self.known[0]["logits"]
                )
                model.close()
                if registry.find(name).facts["launched"] != self.servers[name].facts["launched"]:
                    break
            except ServerRestarted:
                right = False
            if time.monotonic() - start > RECOVERY:
                self._problem(f"{name} did not recover")
                return
        if not right:
            self._problem(f"{name} is wrong after a fault")
        self.servers[name] = registry.find(name)
        self.course.recoveries.append(time.monotonic() - start)

    def _sample(self) -> None:
        for name in self.servers:
            facts = registry.find(name).facts
            pids = (facts["supervisor"], *(rank["pid"] for rank in facts["ranks"]))
            try:
                self.course.samples.setdefault(name, []).append(self._sampled(name, pids))
            except psutil.Error:  # it is being started anew
                continue

    def _sampled(self, name: str, pids: tuple[int, ...]) -> Sample:
        processes = [psutil.Process(pid) for pid in pids]
        memory = [process.memory_full_info() for process in processes]
        return Sample(
            time.monotonic() - self.start,
            pids,
            sum(m.rss for m in memory),
            sum(m.uss for m in memory),
            sum(process.num_fds() for process in processes),
            sum(process.num_threads() for process in processes),
            sum(1 for _ in shared_directory(name).iterdir()),
            sum(1 for _ in own_directory(name).rglob("*")),
        )

    def stop(self) -> None:
        """End the servers; nothing may be left of them."""
        for name, server in self.servers.items():
            pids = [server.facts["supervisor"], *(r["pid"] for r in server.facts["ranks"])]
            control.stop(server, force=True)
            places = [own_directory(name), shared_directory(name), server.file]
            end = time.monotonic() + 20
            while any(map(process_lives, pids)) or any(place.exists() for place in places):
                if time.monotonic() > end:
                    left = [str(place) for place in places if place.exists()]
                    self._problem(f"{name} left {[p for p in pids if process_lives(p)]} {left}")
                    break
                time.sleep(0.05)

    def _problem(self, what: str) -> None:
        print(f"PROBLEM at {time.monotonic() - self.start:.0f} s: {what}", flush=True)
        self.course.problems.append(what)


def _silent(line: str) -> None:
    """Nobody needs to be told of a launch."""


# -- what it came to -----------------------------------------------------------------------------


def flat(samples: list[Sample]) -> list[dict[str, Any]]:
    """For each time in which the processes of a server were the same: what they used at first and at last.

    Medians of the second quarter (the first warms up) and of the last. What was too short to say is left out.
    """
    found = []
    for pids in dict.fromkeys(sample.pids for sample in samples):
        same = [sample for sample in samples if sample.pids == pids]
        if len(same) < 12:
            continue
        quarter = len(same) // 4
        early, late = same[quarter : 2 * quarter], same[-quarter:]
        row: dict[str, Any] = {"seconds": same[-1].time - same[0].time, "processes": len(pids)}
        for what in ("rss", "uss", "descriptors", "threads", "shared", "files"):
            row[what] = [int(statistics.median(getattr(s, what) for s in p)) for p in (early, late)]
        minutes = (late[0].time - early[0].time) / 60
        row["growth per minute"] = (row["uss"][1] - row["uss"][0]) / minutes
        found.append(row)
    return found


def told(directory: Path) -> list[dict[str, Any]]:
    """What all clients wrote; the last line of one that was killed may be half."""
    rows = []
    for file in directory.glob("*.jsonl"):
        for line in file.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
    return rows


def verdict(soak: Soak) -> dict[str, Any]:
    """The figures, and the problems."""
    rows = told(soak.directory)
    requests = [row for row in rows if "kind" in row]
    course = soak.course
    problems = list(course.problems)
    problems += [f"{r['kind']} {r['ended']}" for r in requests if r["ended"].startswith("wrong")]
    flats = {name: flat(samples) for name, samples in course.samples.items()}
    for name, times in flats.items():
        for row in times:
            if row["uss"][1] - row["uss"][0] > GROWTH * row["processes"]:
                problems.append(f"{name} grows: {row}")
            for what in ("descriptors", "threads"):
                if row[what][1] - row[what][0] > MORE_DESCRIPTORS * row["processes"]:
                    problems.append(f"{name} has more and more {what}: {row}")
    interrupts = [row["interrupt"] for row in rows if "interrupt" in row]
    return {
        "seconds": soak.seconds,
        "requests": Counter(row["kind"] for row in requests),
        "ended": Counter(row["ended"].split(":")[0] for row in requests),
        "faults": course.faults,
        "slowest request": max((row["seconds"] for row in requests), default=0),
        "slowest interrupt": max(interrupts, default=0),
        "slowest recovery": max(course.recoveries, default=0),
        "servers": flats,
        "problems": problems,
    }


def show(found: dict[str, Any]) -> None:
    """The table."""
    for title in ("requests", "ended", "faults"):
        print(f"\n{title}: {sum(found[title].values()):,}")
        for what, count in sorted(found[title].items()):
            print(f"  {what:36} {count:8,}")
    print()
    for what in ("slowest request", "slowest interrupt", "slowest recovery"):
        print(f"{what:20} {found[what]:6.2f} s")
    for name, times in found["servers"].items():
        for row in times:
            first, last = (size / 2**20 for size in row["uss"])
            print(
                f"{name}: {row['seconds']:5.0f} s, memory {first:.0f} → {last:.0f} MiB "
                f"({row['growth per minute'] / 2**20:+.2f} MiB a minute), descriptors "
                f"{row['descriptors']}, threads {row['threads']}, files {row['files']}, shared {row['shared']}"
            )
    print("\n".join(["", *found["problems"]]) if found["problems"] else "\nall right")


def main() -> int:
    words = argparse.ArgumentParser(description="Soak two servers.")
    words.add_argument("--seconds", type=float, default=1200.0)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--json", type=Path, help="write the figures there")
    given = words.parse_args()
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: sys.exit(1))  # not without the end below
    with tempfile.TemporaryDirectory(prefix="garcon-soak-") as directory:
        os.environ["GARCON_RUNTIME"] = directory
        soak = Soak(given.seconds, given.seed, Path(directory))
        try:
            soak.run()
        finally:
            for client in soak.clients.values():
                client.kill()
            soak.stop()
        found = verdict(soak)
    show(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
