"""Too much: what does not fit is refused or fails alone, with the numbers, and the server goes on."""

from __future__ import annotations

import gc
import multiprocessing
import re
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.distributed.mesh import Mesh
from garcon_backend.execution import admission
from garcon_backend.execution.requests.forward import ForwardHandler
from garcon_backend.execution.tools import Tools
from garcon_backend.probing.rank import Rank
from garcon_backend.process import memory
from garcon_backend.save_contexts.contexts import Contexts
from garcon_jupyter import BadRequest, BadTokens, ProbeError, RemoteModel, Server
from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import DoesNotFit, OutOfMemory
from garcon_jupyter.servers import control, limits
from garcon_jupyter.servers.server import log_file, shared_directory
from garcon_jupyter.wire import requests as wire
from garcon_jupyter.wire.launch_spec import Limits
from tests.conftest import quiet
from tests.oracle import PROMPT, Plain, close
from tests.unharmed import OUT, keep, unharmed

MIB = 1 << 20
MEMORY, KEEP = 600 * MIB, 64 * MIB
"""What each rank here may use beside the model, and keep."""


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def small(request: pytest.FixtureRequest, llama_path: Path) -> Iterator[Server]:
    """A server with little memory."""
    name = f"small-{request.param}"
    server = garcon.launch(
        llama_path,
        name,
        tp=request.param,
        memory=MEMORY * request.param,
        keep="64MiB",
        progress=quiet,
    )
    yield server
    control.kill(server)


@pytest.fixture
def model(small: Server, plain: Plain) -> Iterator[RemoteModel]:
    """A session on it."""
    with unharmed(small, plain) as mine:
        yield mine


def run(model: RemoteModel, function: Any, **more: Any) -> Any:
    """A forward with one probe."""
    return model.forward(PROMPT, probes=[model.probe_points[OUT].probe(function)], **more)


# -- memory ends ---------------------------------------------------------------------------------


def test_a_probe_that_asks_for_too_much_at_once(model: RemoteModel) -> None:
    def greedy(save_ctx: Any, tensor: Tensor) -> None:
        torch.ones(1 << 40)  # the line that is to blame

    with pytest.raises(OutOfMemory, match=r"4\.0 TiB more were asked for; \d") as caught:
        run(model, greedy)
    error: Any = caught.value
    assert isinstance(error, ProbeError) and isinstance(error, MemoryError)
    assert "the line that is to blame" in str(error)
    assert f"{OUT} [2, 6, 48] float32, whole" in str(error)


def test_a_probe_that_allocates_until_memory_ends(model: RemoteModel) -> None:
    def hoards(save_ctx: Any, tensor: Tensor) -> None:
        hoard = []
        while True:
            hoard.append(torch.ones(MIB))

    for _ in range(3):  # what it held is given back each time
        with pytest.raises(
            OutOfMemory, match=r"4\.0 MiB more were asked for; .* are left"
        ) as caught:
            run(model, hoards)
        assert "hoard.append" in str(caught.value)


def test_memory_can_end_again_and_again(model: RemoteModel) -> None:
    """Whatever took it, all of it comes back: a limit that gave way a little each time would be none."""

    def arrays(save_ctx: Any, tensor: Tensor) -> None:
        hoard = []
        while True:
            hoard.append(bytearray(MIB))

    def texts(save_ctx: Any, tensor: Tensor) -> None:
        hoard = []
        while True:
            hoard.append(bytes(10_000))

    def small_tensors(save_ctx: Any, tensor: Tensor) -> None:
        hoard = []
        while True:
            hoard.append(torch.ones(20_000))

    pids = [rank["pid"] for rank in model.status()["ranks"]]
    most = [asked_for(pid) + 3 * MEMORY for pid in pids]
    for hoards in 2 * (arrays, texts, small_tensors):
        with pytest.raises(OutOfMemory, match="Memory of the host ended: ") as caught:
            run(model, hoards)
        (left,) = re.findall(r"([\d.]+) MiB are left", str(caught.value))
        assert float(left) > MEMORY / MIB / 3
    assert all(asked_for(pid) < count for pid, count in zip(pids, most, strict=True))


def asked_for(pid: int) -> int:
    """Bytes that a process counts as its own."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmData:\s+(\d+) kB", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def test_others_ask_while_memory_ends(model: RemoteModel, small: Server) -> None:
    """Their questions wait a moment for it to come back."""

    def hoards(save_ctx: Any, tensor: Tensor) -> None:
        hoard = []
        while True:
            hoard.append(bytes(1_000))

    other, over, asked = garcon.connect(small.name), threading.Event(), 0

    def request() -> None:
        for _ in range(3):
            with pytest.raises(OutOfMemory):
                run(model, hoards)
        over.set()

    with ThreadPoolExecutor(1) as pool:
        requested = pool.submit(request)
        while not over.is_set() and not requested.done():
            assert other.status()["ranks"]
            asked += 1
        requested.result()
    assert asked > 10
    other.close()


def test_a_loss_and_a_logits_function_that_ask_for_too_much(model: RemoteModel) -> None:
    def loss(logits: Tensor) -> Tensor:
        return logits.mean() + torch.ones(1 << 40).mean()

    with pytest.raises(OutOfMemory, match=r"4\.0 TiB"):
        model.backward(PROMPT, loss)
    with pytest.raises(OutOfMemory, match=r"4\.0 TiB"):
        model.forward(PROMPT, logits=lambda logits: torch.ones(1 << 40))


def test_what_a_request_saved_while_memory_ended_is_taken_back(model: RemoteModel) -> None:
    def grows(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.rows = getattr(save_ctx, "rows", [])
        save_ctx.rows.append(tensor[0, 0])
        save_ctx.count = len(save_ctx.rows)
        while save_ctx.count > 2:
            save_ctx.rows.append(torch.ones(MIB // 8))

    run(model, grows), run(model, grows)
    earlier = model.recordings()[OUT]
    with pytest.raises(OutOfMemory):
        run(model, grows)
    recording = model.recordings()[OUT]
    assert recording.count == 2 and len(recording.rows) == 2 and len(earlier.rows) == 2
    assert recording.rows[0].shape == (48,)


def test_a_pass_that_grows_until_it_does_not_fit(model: RemoteModel) -> None:
    """Whether it is refused beforehand or fails on the way, on all ranks it is an error with numbers."""
    told = r"\d (.iB|bytes) are (left|there)"
    for asks in (
        lambda tokens: model.forward(tokens, logits="none"),
        lambda tokens: model.backward(tokens, Tensor.mean),
    ):
        rows = 500
        with pytest.raises((OutOfMemory, DoesNotFit), match=told):
            while rows < 100_000:
                asks(torch.zeros(rows, 125, dtype=torch.long))
                rows += rows // 2


def test_the_limit_leaves_room_for_threads(model: RemoteModel) -> None:
    """The stack of a thread counts by its whole size."""

    def starts(save_ctx: Any, tensor: Tensor) -> None:
        import threading

        waiting = threading.Event()
        threads = [threading.Thread(target=waiting.wait, args=(10,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        waiting.set()
        for thread in threads:
            thread.join()
        save_ctx.count = len(threads)

    run(model, starts)
    assert model.recordings()[OUT].count == 20


def test_a_real_model_has_a_limit_that_does_not_disturb(smollm2: RemoteModel) -> None:
    (rank,) = smollm2.status()["ranks"]
    limit, _ = resource.prlimit(rank["pid"], resource.RLIMIT_DATA)
    assert 0 < limit < psutil.virtual_memory().total * 2
    tokens = smollm2.encode("The capital of France is")
    assert smollm2.decode(smollm2.forward(tokens, logits="last").argmax(-1)) == " Paris"


# -- what is kept --------------------------------------------------------------------------------


def test_a_tensor_for_which_there_is_no_room_is_refused_at_its_line(model: RemoteModel) -> None:
    def saves(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.first = torch.ones(2 * MIB)
        for number in range(20):
            save_ctx.__setattr__(f"more{number}", torch.ones(2 * MIB))  # the line

    most = sized(KEEP // len(model.status()["ranks"]))
    with pytest.raises(
        DoesNotFit,
        match=rf"session '{model.session}' .* of the {most} .*and 8\.0 MiB more do not fit",
    ) as caught:
        run(model, saves)
    assert "the line" in str(caught.value) and "clear_recordings" in caught.value.problem
    assert OUT not in model.recordings() or not len(model.recordings()[OUT].keys())


def test_what_grew_unseen_is_counted_when_the_request_is_over(model: RemoteModel) -> None:
    """Lists grow without anybody being asked; so do snapshots, which hold what was replaced."""

    def grows(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.rows = getattr(save_ctx, "rows", [])
        for _ in range(10):
            save_ctx.rows.append(torch.ones(MIB // 8))

    most, kept = sized(KEEP // len(model.status()["ranks"])), 0
    with pytest.raises(DoesNotFit, match=rf"Recordings take .* of the {most} that this rank keeps"):
        while kept < 100:
            run(model, grows)
            kept += 1
    assert len(model.recordings()[OUT].handle("rows").fetch()) == 10 * kept
    with pytest.raises(DoesNotFit):
        run(model, grows)
    model.clear_recordings()
    gc.collect()  # the snapshot goes as well
    run(model, grows)
    assert len(model.recordings()[OUT].rows) == 10


def test_others_are_told_who_keeps_the_most_and_can_go_on(
    model: RemoteModel, small: Server
) -> None:
    def saves(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.big = torch.ones(6 * MIB)

    def saves_more(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.big = torch.ones(12 * MIB)

    run(model, saves)
    other = garcon.connect(small.name)
    with pytest.raises(DoesNotFit, match=f"session '{model.session}' 24.0 MiB"):
        run(other, saves_more)
    run(other, keep)
    assert other.recordings()[OUT].tensor.shape == (2, 6, 48)
    other.close()


def test_contexts_alone() -> None:
    """In a process where nothing else takes or gives back memory meanwhile."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        alone.submit(_contexts_alone).result()


def _contexts_alone() -> None:
    contexts = Contexts()
    contexts.quota.set_limit(8 * MIB)
    contexts.quota.begin()
    context = contexts.open("a", OUT, None)
    context.one = torch.ones(MIB)
    contexts.check_room()
    snapshot = contexts.snapshot("a", 1)
    contexts.quota.begin()
    context = contexts.open("a", OUT, None)
    with pytest.raises(DoesNotFit, match=r"take 8\.0 MiB \(session 'a' 8\.0 MiB\) of the 8\.0 MiB"):
        context.two = torch.ones(MIB + MIB // 2)
    context.one = torch.zeros(3)
    contexts.quota.take_back()
    assert vars(context)["one"].numel() == MIB and set(vars(context)) == {"one"}
    contexts.clear("a")
    assert snapshot[OUT, None].values["one"].numel() == MIB


# -- what is known beforehand --------------------------------------------------------------------


def test_a_million_tokens_are_refused_before_they_run(model: RemoteModel) -> None:
    tokens = torch.zeros(1_000_000 // 125, 125, dtype=torch.long)
    count = sized(tokens.numel() * 263 * 4)
    with pytest.raises(
        DoesNotFit, match=rf"logits {re.escape(count)}\); .* are there\. Take a small"
    ):
        model.forward(tokens)
    with pytest.raises(DoesNotFit, match=r"\(activations \d\.\d GiB, logits 2\.0 GiB\)"):
        model.backward(tokens, Tensor.mean)
    few = tokens[:50]
    assert model.forward(few, logits=lambda logits: logits.shape) == (50, 125, 263)


def test_generations_without_end_are_refused(model: RemoteModel) -> None:
    with pytest.raises(BadTokens, match="at most 122 new tokens"):
        model.generate(PROMPT, max_new_tokens=10**9)
    with pytest.raises(DoesNotFit, match="the key-value cache"):
        model.generate(PROMPT, num_return_sequences=10**6, do_sample=True)
    with pytest.raises((BadRequest, BadTokens)):
        model.generate(PROMPT, max_new_tokens=-1)
    assert model.generate(PROMPT, max_new_tokens=2).shape == (2, 8)


def test_what_a_pass_needs() -> None:
    sizes = {"V": 1000, "D": 8, "M": 16, "H": 2, "K": 2, "d": 4}
    ruler = admission.Admission(Mesh.solo(), torch.nn.Linear(2, 2), 3, sizes)
    batch = wire.Batch(torch.zeros(5, 7))

    def needs(request: Any) -> dict[str, int]:
        return {need.what: need.count for need in ruler._needs(request)}

    activations = 5 * 7 * 4 * (4 * 8 + 3 * 16)
    whole, last = 5 * 7 * 1000 * 4, 5 * 1000 * 4
    assert needs(wire.Forward(batch=batch)) == {"activations": activations, "logits": whole}
    assert needs(wire.Forward(batch=batch, logits="last"))["logits"] == last
    code = wire.Code(b"", "", "f")
    probe = wire.ProbeSpec("logits", code)
    probed = wire.Forward(batch=batch, logits="none", probes=(probe,))
    assert needs(probed)["logits"] == whole
    scores = wire.ProbeSpec("layers.1.attn.scores", code)
    scored = needs(wire.Forward(batch=batch, probes=(scores,)))
    assert scored["attention scores"] == 2 * 5 * 2 * 7 * 7 * 4
    backward = needs(wire.Backward(batch=batch))
    assert backward == {"activations": 3 * activations, "logits": 2 * whole}
    options = {"max_new_tokens": 3, "num_beams": 2}
    generated = needs(wire.Generate(batch=batch, options=options))
    assert generated["the key-value cache"] == 5 * 2 * (7 + 3) * 2 * 2 * 4 * 3 * 4
    assert generated["logits"] == 2 * last


def test_over_several_ranks_a_pass_must_surely_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    request = wire.Forward(batch=wire.Batch(torch.zeros(1000, 100)), logits="none")
    ruler = admission.Admission(Mesh.solo(), torch.nn.Linear(2, 2), 3, {"D": 8, "M": 16})
    needed = sum(need.count for need in ruler._needs(request))
    monkeypatch.setattr(admission.memory, "left", lambda device: needed)
    ruler.check(request)
    ruler.alone = False
    up_to = sized(int(needed * admission.BEYOND))
    with pytest.raises(DoesNotFit, match=rf"with copies up to {up_to}; {sized(needed)} are there"):
        ruler.check(request)
    enough = int(needed * admission.BEYOND)
    monkeypatch.setattr(admission.memory, "left", lambda device: enough)
    ruler.check(request)


# -- full disks ----------------------------------------------------------------------------------


@contextmanager
def largest_file(server: Server, count: int) -> Iterator[None]:
    """The processes of a server can write no file larger than this, as where a disk is full."""
    pids = [rank["pid"] for rank in control.status(server)["ranks"]]
    former = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids]
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (count, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for pid, limit in zip(pids, former, strict=True):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)


def test_an_answer_that_shared_memory_does_not_hold(
    model: RemoteModel, small: Server, plain: Plain
) -> None:
    ids = [list(range(100))] * 8
    before = set(shared_directory(small.name).iterdir())
    with largest_file(small, 100_000):
        with pytest.raises(DoesNotFit, match=r"An answer of 821\.\d KiB does not fit .* are free"):
            model.forward(ids)
        assert model.forward(ids, logits="last").shape == (8, 263)
    assert set(shared_directory(small.name).iterdir()) == before
    assert close(model.forward(ids), plain.logits(ids))


def test_logits_for_which_shared_memory_has_no_room_are_not_computed(tmp_path: Path) -> None:
    tools = Tools(Rank.around(torch.nn.Linear(2, 2)))
    tools.admission.sizes["V"] = 10**12
    request = wire.Forward(batch=wire.Batch(torch.zeros(5, 7)))
    with pytest.raises(DoesNotFit, match=r"logits need 127\.3 TiB of shared memory.* are free"):
        ForwardHandler(request, tools).admit(tmp_path)
    ForwardHandler(wire.Forward(batch=request.batch, logits="none"), tools).admit(tmp_path)
    ForwardHandler(request, tools).admit(None)


def test_a_log_that_cannot_be_written_ends_nothing(model: RemoteModel, small: Server) -> None:
    def prints(save_ctx: Any, tensor: Tensor) -> None:
        import sys

        sys.__stdout__.write("x" * 100_000)
        sys.__stdout__.flush()

    size = log_file(small.name).stat().st_size
    with largest_file(small, size):
        with pytest.raises(OSError, match="File too large"):
            run(model, prints)
        with pytest.raises(BadRequest, match="The loss is"):
            model.backward(PROMPT, lambda logits: 3)
        with pytest.raises(ProbeError):
            run(model, lambda save_ctx, tensor: 1 / 0)
        assert model.forward(PROMPT, logits="last").shape == (2, 263)


# -- the parts, alone ----------------------------------------------------------------------------


def test_errors_of_memory_are_known_by_their_words() -> None:
    refused = RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 4398046511104 bytes. Error code 12 (Cannot allocate memory)"
    )
    assert "4.0 TiB more were asked for" in str(memory.typed(refused))
    assert isinstance(memory.typed(MemoryError()), OutOfMemory)
    other = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert memory.typed(other) is other
    ours = DoesNotFit("a", "b")
    assert memory.typed(ours) is ours


def test_bytes_are_words() -> None:
    asked = {"memory": "1.5GiB", "keep": "512MB", "forget": "30m"}
    allowed = limits.taken({"idle_timeout": "1h", **asked, "nnodes": 2})  # type: ignore[typeddict-item]
    assert allowed == Limits(3600, 3 << 29, 512 * MIB, 1800)
    assert limits.taken({"idle_timeout": 5}) == Limits(5) and limits.taken({}) == Limits(3600)
    for wrong in ("much", "-1", "0", "1 PiB", ""):
        with pytest.raises(BadRequest, match="no number of bytes"):
            limits.taken({"keep": wrong})  # type: ignore[typeddict-item]
    assert [sized(n) for n in (0, 1023, 1536, 3 << 30)] == [
        *("0 bytes", "1023 bytes", "1.5 KiB", "3.0 GiB")
    ]
