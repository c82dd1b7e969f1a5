"""A real notebook kernel: cells in, outputs out, interrupt and restart as a person does them."""

from __future__ import annotations

import os
import time
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import pytest
import torch
from jupyter_client.manager import KernelManager

import garcon_jupyter as garcon
from garcon_jupyter.connection.connection_file import process_lives
from tests.conftest import RUNTIME
from tests.oracle import Plain, close

pytestmark = pytest.mark.processes


class Cell:
    """One run of a cell: what came out, by the kind of the message."""

    def __init__(self, kernel: Kernel, source: str) -> None:
        self._client = kernel.client
        self.id = self._client.execute(source)
        self.outputs: list[tuple[str, dict[str, Any]]] = []

    def wait(self, until: str | None = None, seconds: float = 60) -> Cell:
        """Until it has ended, or has printed a text."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                message = self._client.get_iopub_msg(timeout=1)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") != self.id:
                continue
            kind, content = message["msg_type"], message["content"]
            self.outputs.append((kind, content))
            if kind == "status" and content["execution_state"] == "idle":
                return self
            if until is not None and until in self.text:
                return self
        raise TimeoutError(self.outputs)

    @property
    def text(self) -> str:
        return "".join(content["text"] for kind, content in self.outputs if kind == "stream")

    @property
    def result(self) -> str:
        """The value of its last line."""
        assert not self.error, self.error
        return next(
            content["data"]["text/plain"]
            for kind, content in self.outputs
            if kind == "execute_result"
        )

    @property
    def error(self) -> str:
        return "\n".join(
            line for kind, c in self.outputs if kind == "error" for line in c["traceback"]
        )

    @property
    def shown(self) -> list[dict[str, Any]]:
        return [content["data"] for kind, content in self.outputs if kind == "display_data"]


class Kernel:
    """A notebook's kernel, started as Jupyter starts it."""

    def __init__(self) -> None:
        # Jupyter names the notebook in its kernel's environment.
        self._env = {**os.environ, "JPY_SESSION_NAME": "/home/somebody/study.ipynb"}
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env=self._env)
        self._connect()

    def _connect(self) -> None:
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, source: str) -> Cell:
        return Cell(self, source).wait()

    def restart(self) -> None:
        self.client.stop_channels()
        self.manager.restart_kernel(now=True)
        self._connect()

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel(llama_path: Path) -> Iterator[Kernel]:
    """A kernel whose first cell has launched the small Llama as "noted"."""
    assert os.environ["GARCON_RUNTIME"] == str(RUNTIME)
    opened = Kernel()
    opened.run("%load_ext garcon_jupyter")
    launched = opened.run(f"%garcon launch {llama_path} --name noted")
    assert not launched.error, launched.error
    assert "rmodel is connected to noted: LlamaForCausalLM" in launched.text
    yield opened
    opened.close()


def pid() -> int:
    (server,) = [s for s in garcon.servers() if s.name == "noted"]
    return server.facts["pid"]


def test_launch_probe_forward_recordings(kernel: Kernel) -> None:
    attached = kernel.run(
        "%%probe layers.1.mlp.post_activation\nprint('probed', list(tensor.shape))\n"
        "save_ctx.tensor = tensor"
    )
    assert not attached.error, attached.error
    assert "layers.1.mlp.post_activation" in attached.text and "probed" not in attached.text
    # What a probe prints appears in the cell whose pass ran it.
    ran = kernel.run("logits = rmodel.forward(rmodel.encode('Hello')); tuple(logits.shape)")
    assert ran.text == "probed [1, 6, 80]\n" and ran.result == "(1, 6, 263)"
    saved = kernel.run("rmodel.recordings()['layers.1.mlp.post_activation'].tensor.shape")
    assert saved.result == "torch.Size([1, 6, 80])" and saved.text == ""


def test_an_error_names_the_line_of_the_cell(kernel: Kernel) -> None:
    failed = kernel.run("%%probe layers.2.attn.z --once --on Hello\nx = 1\ny = tensor / 'two'")
    number = int(kernel.run("len(In) - 2").result)
    assert f"Cell In[{number}], line 3, in cell_{number}" in failed.error
    assert "    y = tensor / 'two'" in failed.error and "TypeError" in failed.error
    assert "ipykernel" not in failed.error


def test_show_puts_a_picture_into_the_cell(kernel: Kernel) -> None:
    shown = kernel.run("rmodel.show('layers.1.mlp.post_activation')")
    assert not shown.error, shown.error
    assert any("<img" in data.get("text/html", "") for data in shown.shown)
    assert any("application/vnd.jupyter.widget-view+json" in data for data in shown.shown)


def test_completion_through_the_protocol(kernel: Kernel) -> None:
    code = "%%probe layers.1.mlp.po"
    reply = kernel.client.complete(code, reply=True, timeout=30)["content"]
    assert reply["matches"] == ["layers.1.mlp.post_activation"]
    assert code[reply["cursor_start"] : reply["cursor_end"]] == "layers.1.mlp.po"
    (typed,) = reply["metadata"]["_jupyter_types_experimental"]
    assert typed["type"] == "probe point"


def test_record_keeps_the_ten_largest_values(kernel: Kernel, plain: Plain) -> None:
    """Of passes, and of a run with the same probe: values, documents and offsets are those of sorting all."""
    recorded = kernel.run("%%probe layers.1.mlp.post_activation --record topk=10 --name kept")
    assert not recorded.error and "TopK" in recorded.text, recorded.error
    rows = np.random.default_rng(5).integers(3, 263, size=(30, 11))
    values = plain.neurons(1, rows).flatten(0, 1)
    best = values.topk(10, 0)
    shown = (
        "kept = rmodel.recordings()['layers.1.mlp.post_activation', 'kept'].topk; "
        "[kept.values.tolist(), kept.documents.tolist(), kept.offsets.tolist()]"
    )

    def check(cell: Cell) -> None:
        found, documents, offsets = (torch.tensor(column) for column in literal_eval(cell.result))
        assert close(found, best.values.T)
        assert torch.equal(documents * 11 + offsets, best.indices.T)

    assert not kernel.run(f"rmodel.forward({rows.tolist()}, logits='none')").error
    check(kernel.run(shown))
    ran = kernel.run(
        "probes = [p for p in rmodel.attached.values() if p.name == 'kept']\n"
        f"rmodel.run({rows.tolist()}, probes, batch_tokens=44)"
    )
    # The cell shows one line, with tokens per second, and leaves it.
    assert not ran.error and "330 tokens" in str(ran.outputs) and "/s" in ran.result
    check(kernel.run(shown))
    kernel.run("rmodel.detach()")


def test_interrupt_stops_an_endless_probe(kernel: Kernel) -> None:
    before = kernel.run("rmodel.forward([[0, 5, 7]], probes=[]).sum().item()").result
    endless = Cell(
        kernel, "%%probe embed.out --once --on Hello\nprint('on', flush=True)\nwhile True: pass"
    )
    endless.wait(until="on\n")
    started = time.monotonic()
    kernel.manager.interrupt_kernel()
    endless.wait()
    assert time.monotonic() - started < 3
    assert "Interrupted" in endless.error and "Nothing else was lost" in endless.error
    assert kernel.run("rmodel.forward([[0, 5, 7]], probes=[]).sum().item()").result == before


def test_a_restarted_kernel_finds_its_server_and_recordings(
    kernel: Kernel, llama_path: Path
) -> None:
    kernel.run("%%probe layers.3.resid_post --on Hello\nsave_ctx.tensor = tensor")
    saved = kernel.run("rmodel.recordings()['layers.3.resid_post'].tensor.sum().item()").result
    session, process = kernel.run("rmodel.session").result, pid()
    kernel.restart()
    kernel.run("%load_ext garcon_jupyter")
    again = kernel.run(f"%garcon launch {llama_path} --name noted")
    assert "is resumed, with" in again.text, (again.text, again.error)
    assert pid() == process
    assert kernel.run("rmodel.session").result == session
    assert "study.ipynb" in session
    found = kernel.run("rmodel.recordings()['layers.3.resid_post'].tensor.sum().item()")
    assert found.result == saved
    assert kernel.run("len(rmodel.attached)").result == "0"


def test_stop_ends_the_server_and_closes_its_connection(kernel: Kernel) -> None:
    process = pid()
    assert kernel.run("%garcon stop").text == "noted has ended.\n"
    assert not process_lives(process)
    closed = kernel.run("%garcon recordings").error
    assert "The connection rmodel was closed.\n%garcon launch smollm2" in closed
    assert "shut down by" in kernel.run("%garcon connect noted").error
    assert "shut down by" in kernel.run("%garcon logs noted -n 1").text
