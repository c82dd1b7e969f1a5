"""Two hundred interrupts: wherever one hits a request, on however many ranks, the next request is right.

They are pressed as a user presses them (a signal to this process), at random moments. Where they hit is told by
the server itself, in its log.
"""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import Interrupted, Server
from garcon_jupyter.connection.deferred_interrupts import Patience
from garcon_jupyter.servers import control, registry
from garcon_jupyter.servers.server import log_file
from garcon_jupyter.wire import protocol
from tests import checkpoints
from tests.behaviour.test_servers import until
from tests.conftest import quiet
from tests.oracle import PROMPT, Plain, close

OUT = "layers.2.mlp.out"

LARGE = torch.arange(24 * 120).reshape(24, 120) % 250
"""A batch that takes some tenths of a second."""

DEGREES = {"alone": {}, "tp": {"tp": 2}, "pp": {"pp": 2}}

PHASES = {"queued", "preparing", "forward", "user code", "gathering", "generating"}

EACH, ALL = 20, 200
"""Interrupts that have to hit in each phase, and in all."""

PER_SERVER = 12
"""Those in each phase of one server. Only over tensor-parallel ranks is there something to gather."""

AT_MOST = 2.0
"""Seconds from an interrupt to its end, and one layer's time more."""


@pytest.fixture(scope="module")
def larger_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama that takes some time."""
    sizes = {"num_hidden_layers": 8, "hidden_size": 192, "intermediate_size": 512}
    return checkpoints.make("llama", tmp_path_factory.mktemp("larger"), **sizes)


@pytest.fixture(scope="module")
def larger(larger_path: Path) -> Plain:
    return Plain(larger_path)


@pytest.fixture(scope="module")
def servers(larger_path: Path) -> Iterator[dict[str, Server]]:
    """One server of each kind."""

    def launch(kind: str) -> Server:
        return garcon.launch(larger_path, f"pressed-{kind}", progress=quiet, **DEGREES[kind])

    with ThreadPoolExecutor() as pool:
        found = dict(zip(DEGREES, pool.map(launch, DEGREES), strict=True))
    yield found
    for server in found.values():
        if server.file.exists():
            control.kill(server)


def hits(server: Server) -> Counter[str]:
    """How many requests were cancelled in which phase, by the server's own log."""
    log = log_file(server.name).read_text()
    return Counter(re.findall(r"^\[garcon\] cancelled \S+ while (.+)$", log, re.MULTILINE))


def pressed(run: Callable[[], Any], delay: float) -> tuple[BaseException | None, float]:
    """Interrupt this process while it runs a request; what that raised, and seconds from the one to the
    other. Where the request was faster, the interrupt hits nothing."""
    when = time.monotonic()

    def press() -> None:
        nonlocal when
        when = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(delay, press)
    try:
        timer.start()
        run()
        timer.join()
        time.sleep(1)
    except KeyboardInterrupt as error:
        return error, time.monotonic() - when
    return None, 0.0


class Presser:
    """Interrupts the requests of one client, and looks each time whether the server is right."""

    def __init__(self, server: Server, plain: Plain, seed: int) -> None:
        self.server = server
        self.model, self.other = garcon.connect(server.name), garcon.connect(server.name)
        self.random = random.Random(seed)
        self.expected = self.model.forward(PROMPT)
        assert close(self.expected, plain.logits(PROMPT))

    def press(self, run: Callable[[], Any], longest: float, check: bool = True) -> None:
        """Interrupt a request at a random moment within so many seconds."""
        error, seconds = pressed(run, self.random.uniform(0.01, longest))
        assert seconds < AT_MOST, f"{error!r} took {seconds:.1f} seconds"
        if check:
            self.check()

    def check(self) -> None:
        """The next request gives the same numbers to the last bit: there is no late signal, no skipped
        layer and no forgotten hook. Nor does it hear of an interrupt that is none of its own."""
        self.other._channel.ask(protocol.CANCEL, {"request": "of somebody else, long ago"})
        assert torch.equal(self.model.forward(PROMPT, probes=[]), self.expected)

    def until(self, phase: str, often: int, run: Callable[[], Any], longest: float) -> None:
        """Press until the log tells of so many hits in a phase."""
        wanted = hits(self.server)[phase] + often
        for _ in range(15 * often):
            if hits(self.server)[phase] >= wanted:
                return
            self.press(run, longest)
        raise AssertionError(f"too few while {phase}: {hits(self.server)}")

    def probe(self, function: Callable[..., Any], point: str = OUT, **words: Any) -> Any:
        return self.model.probe_points[point].probe(function, **words)

    def everywhere(self) -> None:
        """In each phase in turn."""
        self.until("preparing", PER_SERVER, self.prepares_long, 0.3)
        self.until("forward", PER_SERVER, self.runs_long, 0.4)
        self.until("user code", PER_SERVER, self.probes_for_ever, 0.3)
        self.until("generating", PER_SERVER, self.generates_long, 0.4)
        self.while_another_runs()

    def prepares_long(self) -> Any:
        """What the probe captured takes its time to unpickle, on every rank."""
        slow = Slow()
        return self.model.forward(
            PROMPT, probes=[self.probe(lambda save_ctx, tensor: slow and None)]
        )

    def runs_long(self) -> Any:
        return self.model.forward(LARGE, probes=[], logits="none")

    def probes_for_ever(self) -> Any:
        def endless(save_ctx: Any, tensor: Tensor) -> None:
            while True:
                save_ctx.count = getattr(save_ctx, "count", 0) + 1

        return self.model.forward(PROMPT, probes=[self.probe(endless)])

    def generates_long(self) -> Any:
        return self.model.generate(PROMPT, max_new_tokens=110, eos_token_id=None, probes=[])

    def gathers_much(self) -> Any:
        """Each neuron and each attention weight of the sharded model travels to the leader."""
        probes = [
            self.probe(lambda save_ctx, tensor: None, f"layers.{i}.{point}", read_only=True)
            for i in range(8)
            for point in (
                "mlp.post_activation",
                "mlp.pre_activation",
                "attn.pattern",
                "attn.scores",
            )
        ]
        return self.model.forward(LARGE, probes=probes, logits="none")

    def while_another_runs(self) -> None:
        """Interrupts of requests that wait touch neither the one that runs nor those that wait beside them."""
        ended: list[BaseException] = []

        def run() -> None:
            try:
                endless = other.probe_points[OUT].probe(sleeps)
                other.forward(PROMPT, probes=[endless])
            except Interrupted as error:
                ended.append(error)

        other = self.other
        thread = threading.Thread(target=run)
        thread.start()
        third = garcon.connect(self.server.name)
        until(lambda: third.status()["running"])
        for _ in range(PER_SERVER):
            self.press(lambda: self.model.forward(PROMPT), 0.1, check=False)
        assert not ended
        control.cancel(self.server, third.status()["running"]["request"])
        thread.join(AT_MOST)
        assert isinstance(ended[0], Interrupted)
        self.check()
        third.close()


def sleeps(save_ctx: Any, tensor: Tensor) -> None:
    while True:
        time.sleep(0.01)


class Slow:
    """Takes a while to arrive."""

    def __reduce__(self) -> Any:
        return awake, (1.0,)


def awake(seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.005)
    return True


def test_two_hundred_interrupts(servers: dict[str, Server], larger: Plain) -> None:
    found: Counter[str] = Counter()
    for seed, (kind, server) in enumerate(servers.items()):
        presser = Presser(server, larger, seed)
        presser.everywhere()
        if kind == "tp":
            presser.until("gathering", EACH, presser.gathers_much, 0.6)
        found += hits(server)
        presser.model.close(), presser.other.close()
        assert registry.find(server.name).facts["launched"] == server.facts["launched"]
    assert set(found) >= PHASES and min(found[phase] for phase in PHASES) >= EACH, found
    assert found.total() >= ALL, found


def test_interrupts_of_one_client_never_touch_another(
    servers: dict[str, Server], larger: Plain
) -> None:
    """One interrupts all its own, by the dozen; the other notices nothing."""
    server = servers["tp"]
    mine, other = garcon.connect(server.name), garcon.connect(server.name)
    expected = larger.logits(PROMPT)
    over = threading.Event()
    interrupted: list[BaseException] = []

    def interrupt_own() -> None:
        chance = random.Random(1)
        while not over.is_set():
            timer = threading.Timer(chance.uniform(0.0, 0.1), cancel)
            timer.start()
            try:
                other.forward(PROMPT, probes=[other.probe_points[OUT].probe(sleeps)])
            except Interrupted as error:
                interrupted.append(error)
            timer.join()

    def cancel() -> None:
        request: list[Any] = []
        until(lambda: request.append(other._channel.request_id) or request[-1])
        for _ in range(3):  # more often than needed
            other._channel.ask(protocol.CANCEL, {"request": request[-1]})

    thread = threading.Thread(target=interrupt_own)
    thread.start()
    until(lambda: interrupted)
    for _ in range(20):
        assert close(mine.forward(PROMPT), expected)
    over.set()
    thread.join()
    assert len(interrupted) > 5
    mine.close(), other.close()


def test_a_second_interrupt_detaches(
    servers: dict[str, Server], larger: Plain, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    server, enough = servers["tp"], tmp_path / "enough"
    model = garcon.connect(server.name)

    def dawdles(save_ctx: Any, tensor: Tensor) -> None:
        print("still there", flush=True)
        end = time.monotonic() + 30.0
        while not enough.exists() and time.monotonic() < end:
            try:
                time.sleep(0.01)
            except BaseException:  # noqa: BLE001 - what careless code does
                continue

    def press_twice() -> None:
        before = hits(server)["user code"]
        until(lambda: "still there" in capsys.readouterr().out)
        os.kill(os.getpid(), signal.SIGINT)
        until(lambda: hits(server)["user code"] > before)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press_twice).start()
    with pytest.raises(Interrupted, match=r"stopped waiting .*rmodel\.result"):
        model.forward(PROMPT, probes=[model.probe_points[OUT].probe(dawdles)])
    enough.touch()
    (row,) = model.pending()
    with pytest.raises(Interrupted, match="was interrupted"):
        model.result(row["request"])
    assert model.pending() == []
    assert close(model.forward(PROMPT), larger.logits(PROMPT))
    model.close()


# -- the client's side ---------------------------------------------------------------------------


def test_an_interrupt_waits_until_a_message_is_whole() -> None:
    patience, done = Patience(), []
    with pytest.raises(KeyboardInterrupt), patience:
        os.kill(os.getpid(), signal.SIGINT)
        with patience:
            done.append("sent")
        done.append("received")
    assert done == ["sent", "received"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_lands_where_the_client_waits() -> None:
    patience = Patience()
    with patience:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            patience.wait(lambda milliseconds: None, 10)
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            patience.wait(lambda milliseconds: time.sleep(milliseconds / 1000), 5000)
        assert patience.wait(lambda milliseconds: milliseconds, 7) == 7


def test_an_error_comes_before_an_interrupt_that_waited() -> None:
    with pytest.raises(ValueError), Patience():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError
    time.sleep(0)  # nothing is left to land


def test_other_threads_are_never_interrupted() -> None:
    heard: list[Any] = []

    def work() -> None:
        with Patience() as nothing:
            heard.append(nothing)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [None]
