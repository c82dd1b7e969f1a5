"""A process goes on in its own session, whoever runs it; and where it cannot, it says in which it could."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.manager import start_new_kernel
from torch import Tensor
from traitlets.config import Config

import garcon_jupyter as garcon
from garcon_jupyter import api
from garcon_jupyter.cli.app import main
from garcon_jupyter.client import resuming
from tests.conftest import quiet
from tests.magics.conftest import notebook  # noqa: F401 - a fixture
from tests.oracle import PROMPT

OUT = "layers.2.mlp.out"


def keep(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.tensor = tensor


def edit(save_ctx: Any, tensor: Tensor) -> Tensor:
    return tensor * 0


def wait_until(true: Callable[[], Any], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


def row(name: str) -> garcon.Session:
    (found,) = [one for one in garcon.sessions("tiny") if one.name == name]
    return found


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    yield InteractiveShell.instance(config=config)
    InteractiveShell.clear_instance()


# -- one process ---------------------------------------------------------------------------------


def test_the_launch_cell_run_again_goes_on(llama_server: garcon.Server, llama_path: Path) -> None:
    """Without any name, as in a terminal: the wrong answer is a fresh session, and one more client each time."""

    def launch_cell(**more: Any) -> garcon.RemoteModel:
        return garcon.launch_and_connect(llama_path, name="tiny", progress=quiet, **more)

    rmodel = launch_cell()
    rmodel.clear_recordings()
    rmodel.forward(PROMPT, probes=[rmodel.probe_points[OUT].probe(keep)])
    name = rmodel.session
    for _ in range(3):
        rmodel = launch_cell()
        assert rmodel.session == name and rmodel.resumed
        assert list(rmodel.recordings()) == [OUT]
    gc.collect()
    other = launch_cell(session="deliberate")
    assert other.session == "deliberate" and list(other.recordings()) == []
    fresh = garcon.connect("tiny")
    mine = [one.name for one in garcon.sessions("tiny") if one.mine and one.held]
    assert {name, "deliberate", fresh.session} <= set(mine) and mine.count(name) == 1
    other.close(), fresh.close(), rmodel.close()
    again = launch_cell()  # not in the one that was asked for by name
    assert again.session == name and list(again.recordings()) == [OUT]
    again.clear_recordings()
    again.close()


def test_magics_and_python_share_the_session_of_the_process(
    notebook: Any,  # noqa: F811
    llama_server: garcon.Server,
    llama_path: Path,
) -> None:
    notebook["where"] = str(llama_path)
    notebook.run("%garcon connect tiny")
    rmodel = notebook["rmodel"]
    rmodel.forward(PROMPT, probes=[rmodel.probe_points[OUT].probe(keep)])
    rmodel.close()
    printed = notebook.run("%garcon launch {where} --name tiny")
    assert f"Session {rmodel.session!r} is resumed, with 1 recording.\n" in printed
    same = garcon.launch_and_connect(llama_path, name="tiny", progress=quiet)
    assert same.session == rmodel.session and list(same.recordings()) == [OUT]
    listed = notebook.run("%garcon sessions")
    (line,) = [line for line in listed.splitlines() if line.startswith(rmodel.session)]
    assert f"process {os.getpid()}" in line and line.endswith("1 recording")
    same.clear_recordings()
    same.close(), notebook["rmodel"].close()


# -- by what there is ----------------------------------------------------------------------------


def test_a_notebook_is_found_by_what_its_front_end_says(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    assert resuming.notebook_session() is None  # a terminal
    shell.user_ns["__vsc_ipynb_file__"] = "/home/alice/my study.ipynb"
    assert resuming.notebook_session() == "alice@/home/alice/my-study.ipynb"
    del shell.user_ns["__vsc_ipynb_file__"]
    shell.user_ns["PAPERMILL_OUTPUT_PATH"] = "out/3.ipynb"
    assert resuming.notebook_session() == "alice@out/3.ipynb"
    monkeypatch.setenv("JPY_SESSION_NAME", "/lab.ipynb")
    assert resuming.notebook_session() == "alice@/lab.ipynb"


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("vscode-notebook-cell:/home/a%20b/n.ipynb#W0sZmlsZQ%3D%3D", "/home/a b/n.ipynb"),
        ("vscode-notebook-cell://ssh-remote%2Bhost/srv/n.ipynb#X1", "/srv/n.ipynb"),
        ("5f0a3c1e-90b1-4f6c-8a43-1f3b2a7f9d10", None),  # JupyterLab's
        (None, None),
    ],
)
def test_cells_of_vs_code_say_where_they_are(
    shell: Any, cell: str | None, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = {"metadata": {} if cell is None else {"cellId": cell}}
    monkeypatch.setattr(shell, "get_parent", lambda: parent, raising=False)
    assert resuming._notebook(shell) == name


@pytest.mark.processes
def test_a_script_is_found_by_its_path_and_an_installed_program_is_none(tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text("from garcon_jupyter.client.resuming import _by_name\nprint(_by_name())\n")
    environment = {k: v for k, v in os.environ.items() if k != "JPY_SESSION_NAME"}

    def said(*words: str) -> str:
        command = [sys.executable, *words]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    by_path = f"@{tmp_path}/study.py', lasting=True)"
    assert by_path in said("study.py") and by_path in said("-m", "study")
    assert "name=None" in said("-c", script.read_text())
    # This one runs by pytest, which many do.
    assert resuming.notebook_session() is None


def test_a_kernel_that_was_restarted_finds_its_session(
    llama_server: garcon.Server, llama_path: Path, tmp_path: Path
) -> None:
    """One whose front end says nothing: it has its connection file still."""
    launch = (
        "import garcon_jupyter as garcon\n"
        f"rmodel = garcon.launch_and_connect({str(llama_path)!r}, name='tiny', progress=lambda line: None)\n"
    )
    record = (
        "def keep(save_ctx, tensor):\n    save_ctx.tensor = tensor\n"
        f"rmodel.forward({PROMPT}, probes=[rmodel.probe_points[{OUT!r}].probe(keep)])\n"
    )
    says = "rmodel.session, rmodel.resumed, list(rmodel.recordings())"
    manager, client = start_new_kernel(cwd=str(tmp_path), env=dict(os.environ))

    def run(code: str) -> Any:
        answer = client.execute_interactive(
            code, user_expressions={"says": says}, output_hook=lambda message: None, timeout=100
        )
        assert answer["content"]["status"] == "ok", answer["content"]
        return eval(answer["content"]["user_expressions"]["says"]["data"]["text/plain"])

    try:
        name, resumed, recorded = run(launch + record)
        assert not resumed and recorded == [OUT]
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=100)
        assert run(launch) == (name, True, [OUT])
        magics = f"%load_ext garcon_jupyter\n%garcon launch {llama_path} --name tiny"
        assert run(magics) == (name, True, [OUT])
        # Another kernel has another file: after this one it would be found by nobody.
        assert row(name).held
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


# -- the others ----------------------------------------------------------------------------------


def test_sessions_are_listed_with_what_is_in_them(
    either_served: garcon.RemoteModel, capsys: pytest.CaptureFixture[str]
) -> None:
    server = either_served.server.name
    point = either_served.probe_points[OUT]

    def mine() -> garcon.Session:
        (found,) = [s for s in garcon.sessions(server) if s.name == either_served.session]
        return found

    assert mine().held and mine().mine and mine().contents == ""
    probes = [
        point.probe(keep),
        point.probe(keep, name="b"),
        *either_served.probe_points["layers.*.resid_post"].probes(edit),
    ]
    either_served.forward(PROMPT, probes=probes)
    assert mine().recordings == len(either_served.recordings()) == 2  # those that edit save nothing
    either_served.clear_recordings(name="b")
    assert mine().recordings == len(either_served.recordings()) == 1

    def slow(save_ctx: Any, tensor: Tensor) -> None:
        import time

        time.sleep(0.2)
        save_ctx.seen = tensor.shape[0]

    data = [[5, 6, 7]] * 1000
    run = either_served.run(data, [point.probe(slow, name="run")], batch_tokens=3, blocking=False)
    assert mine().runs == 1
    run.cancel()
    wait_until(lambda: run.poll().over)
    assert mine().runs == 0 and mine().recordings == len(either_served.recordings())
    before = mine().since
    either_served.close()
    left = mine()
    assert not left.held and left.since > before and left.user == mine().user
    assert "free since" in repr(left) and "recording" in repr(left)
    capsys.readouterr()
    assert main(["sessions", server]) == 0
    printed = capsys.readouterr().out
    assert any(
        line.startswith(left.name) and "nobody" in line and left.contents in line
        for line in printed.splitlines()
    )


def test_a_session_that_failed_half_way_counts_what_it_has(
    rmodel_served: garcon.RemoteModel,
) -> None:
    def fails(save_ctx: Any, tensor: Tensor) -> None:
        raise RuntimeError("half way")

    first = rmodel_served.probe_points["layers.0.mlp.out"].probe(keep)
    with pytest.raises(RuntimeError, match="half way"):
        rmodel_served.forward(PROMPT, probes=[first, rmodel_served.probe_points[OUT].probe(fails)])
    assert row(rmodel_served.session).recordings == len(rmodel_served.recordings())


def test_what_was_left_with_nothing_in_it_is_forgotten(llama_server: garcon.Server) -> None:
    """The wrong answer piles up one session for each connection that there ever was."""
    empty = [garcon.connect("tiny") for _ in range(5)]
    full, named = garcon.connect("tiny"), garcon.connect("tiny", session="named")
    full.forward(PROMPT, probes=[full.probe_points[OUT].probe(keep)])
    names = {one.session for one in empty}
    while empty:
        empty.pop().close()
    full.close(), named.close()

    def left() -> set[str]:
        return {one.name for one in garcon.sessions("tiny")}

    wait_until(lambda: not names & left())
    assert {full.session, "named"} <= left()


def test_what_is_not_resumed_is_said_with_what_could_be(
    llama_server: garcon.Server,
    llama_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = garcon.connect("tiny", session="the old one")
    old.forward(PROMPT, probes=[old.probe_points[OUT].probe(keep)])
    old.close()
    monkeypatch.setenv("JPY_SESSION_NAME", f"never before {time.time()}.ipynb")
    capsys.readouterr()
    rmodel = garcon.launch_and_connect(llama_path, name="tiny", progress=quiet)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"[garcon] this is a new session, {rmodel.session!r}")
    assert "session='the old one' (1 recording)" in line
    again = garcon.launch_and_connect(llama_path, name="tiny", progress=quiet)
    assert again.resumed and capsys.readouterr().err == ""
    rmodel.close(), again.close()


def test_who_has_the_session_is_said(
    llama_server: garcon.Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "taken.ipynb")
    name = resuming.notebook_session()
    client = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import garcon_jupyter as g\nm = g.connect('tiny', session={name!r})\nprint(1, flush=True)\ninput()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None and client.stdout.readline() == "1\n"
    capsys.readouterr()
    rmodel = api.in_notebook_session(llama_server)
    assert (
        f"as process {client.pid} on " in (line := capsys.readouterr().err) and repr(name) in line
    )
    again = api.in_notebook_session(llama_server)  # goes on in what it was given
    assert again.session == rmodel.session != name
    rmodel.close(), again.close()
    client.communicate("\n")
