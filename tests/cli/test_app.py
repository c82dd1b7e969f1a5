"""The ``garcon`` command as a terminal runs it: what it prints, where, and its exit codes."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.cli import app
from garcon_jupyter.errors import Interrupted
from garcon_jupyter.points import POINTS
from garcon_jupyter.servers import registry


class Ran:
    """One run of the command in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str], *arguments: str) -> None:
        capture.readouterr()
        try:
            self.code = app.main(arguments)
        except SystemExit as ended:  # argparse
            self.code = int(ended.code or 0)
        self.out, self.err = capture.readouterr()


@pytest.mark.processes
def test_the_command_and_the_module_are_the_same() -> None:
    command = Path(sys.executable).with_name("garcon")
    for start in ([str(command)], [sys.executable, "-m", "garcon_jupyter"]):
        done = subprocess.run([*start, "stop", "nobody"], capture_output=True, text=True)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.startswith("garcon: There is no running server 'nobody'.\n")
        assert "Traceback" not in done.stderr


@pytest.mark.processes
def test_launch_points_logs_and_stop(capsys: pytest.CaptureFixture[str], llama_path: Path) -> None:
    ran = Ran(capsys, "launch", str(llama_path), "--name", "from-cli", "--idle-timeout", "5m")
    assert ran.code == 0, ran.err
    assert "loading llama" in ran.err
    assert ran.out.splitlines()[1] == "In a notebook: %garcon connect from-cli"
    (server,) = [s for s in garcon.servers() if s.name == "from-cli"]
    assert server.facts["idle_timeout"] == 300

    again = Ran(capsys, "launch", str(llama_path), "--name", "from-cli")
    assert again.code == 0 and again.err == ""
    other = Ran(capsys, "launch", str(llama_path), "--name", "from-cli", "--dtype", "bfloat16")
    assert other.code == 1 and "runs with dtype=float32" in other.err

    assert any(row.split()[0] == "from-cli" for row in Ran(capsys, "list").out.splitlines())
    status = Ran(capsys, "status", "from-cli")
    assert status.out.startswith("from-cli\n") and re.search(r"running +nothing", status.out)

    rows = Ran(capsys, "points", "from-cli", "layers.{0,2}.mlp.out").out.splitlines()
    assert [row.split()[0] for row in rows[1:]] == ["layers.0.mlp.out", "layers.2.mlp.out"]
    wrong = Ran(capsys, "points", "from-cli", "layers.0.mlp.uot")
    assert wrong.code == 1 and "Did you mean layers.0.mlp.out" in wrong.err

    assert "loaded 120,912 parameters" in Ran(capsys, "logs", "from-cli").out
    assert len(Ran(capsys, "logs", "from-cli", "-n", "1").out.splitlines()) == 1

    with subprocess.Popen(
        [sys.executable, "-m", "garcon_jupyter", "logs", "from-cli", "-n", "1", "-f"],
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None and following.stdout.readline()
        ended = Ran(capsys, "stop", "from-cli")
        assert following.wait(timeout=20) == 0
    assert (ended.code, ended.out) == (0, "from-cli has ended.\n")
    assert not server.alive
    assert "shut down by" in Ran(capsys, "stop", "from-cli").err
    followed = Ran(capsys, "logs", "from-cli", "-f")  # a server that has ended says no more
    assert followed.code == 0 and "this server has ended: shut down by" in followed.out


def test_stop_says_who_else_is_there(
    capsys: pytest.CaptureFixture[str], llama_server: garcon.Server
) -> None:
    script = "import garcon_jupyter as g, time; m = g.connect('tiny', 'theirs'); print(1); input()"
    with subprocess.Popen(
        [sys.executable, "-uc", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"1\n"
        ran = Ran(capsys, "stop", "tiny")
        other.communicate(b"\n")
    assert ran.code == 1
    assert "Other clients use this server" in ran.err and "theirs" in ran.err
    assert llama_server.alive


@pytest.mark.processes
def test_force_ends_a_server_that_hangs(
    capsys: pytest.CaptureFixture[str], llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    server = garcon.launch(llama_path, name="hanging", progress=lambda line: None)
    os.kill(server.facts["pid"], signal.SIGSTOP)
    monkeypatch.setattr("garcon_jupyter.connection.liveness.ANSWER_TIME", 0.5)
    hangs = Ran(capsys, "status", "hanging")
    assert hangs.code == 1 and "answer" in hangs.err and "garcon stop --force hanging" in hangs.err
    assert Ran(capsys, "stop", "hanging").code == 1
    assert Ran(capsys, "stop", "hanging", "--force").code == 0
    assert not server.alive and not server.file.exists()


def test_points_without_a_server_is_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GARCON_RUNTIME", str(tmp_path))
    ran = Ran(capsys, "points")
    rows = [row.split()[0] for row in ran.out.splitlines()[1:]]
    assert rows == [spec.template for spec in POINTS] and ran.code == 0
    assert "No server runs" in Ran(capsys, "list").out
    assert "No server runs" in Ran(capsys, "status").out
    assert Ran(capsys, "points", "nobody").code == 1


def test_points_of_the_only_server_or_of_a_named_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, llama_server: garcon.Server
) -> None:
    monkeypatch.setattr(registry, "servers", lambda: [llama_server])
    ran = Ran(capsys, "points", "layers.*.attn.z")
    assert [row.split()[0] for row in ran.out.splitlines()[1:]] == [
        f"layers.{n}.attn.z" for n in range(4)
    ]
    assert "This model does not have:" in Ran(capsys, "points").out
    monkeypatch.setattr(registry, "servers", lambda: [llama_server, llama_server])
    assert Ran(capsys, "points", "tiny").code == 0


@pytest.mark.parametrize("command", ["serve", "mcp"])
def test_a_door_without_a_name_is_to_the_only_server(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    llama_server: garcon.Server,
    command: str,
) -> None:
    for running, words in (
        ([], "No server runs."),
        ([llama_server] * 2, "2 servers run: tiny, tiny."),
    ):
        monkeypatch.setattr(registry, "servers", lambda running=running: running)
        ran = Ran(capsys, command)
        assert ran.code == 1 and words in ran.err
    monkeypatch.setattr(registry, "servers", lambda: [llama_server])
    assert registry.only(f"garcon {command}") == "tiny"


def test_wrong_usage_is_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["lanch"], ["stop"], ["launch", "x", "--tp", "three"]):
        ran = Ran(capsys, *arguments)
        assert ran.code == 2 and ran.out == "" and "usage: garcon" in ran.err
    assert "launch a server" in Ran(capsys, "--help").out


def test_errors_are_code_one_and_interrupts_130(capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "launch", "/no/such/model")
    assert ran.code == 1 and ran.err.startswith("garcon: There is no /no/such/model")
    ran = Ran(capsys, "fetch", "smollm3")
    assert ran.code == 1 and "Did you mean smollm2" in ran.err

    def interrupted() -> int:
        raise Interrupted("stopped")

    def pressed() -> int:
        raise KeyboardInterrupt

    assert app.reporting_errors(interrupted) == app.reporting_errors(pressed) == 130


def test_fetch_prints_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "fetch", "smollm2")
    assert ran.code == 0 and (Path(ran.out.strip()) / "config.json").is_file()


def test_the_module_launches_as_in_the_article(
    capsys: pytest.CaptureFixture[str], llama_path: Path, llama_server: garcon.Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(
        sys, "argv", ["launch", "--snapshot", str(llama_path), "--name", llama_server.name]
    )
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("garcon_jupyter.launch", run_name="__main__")
    assert ended.value.code == 0
    assert "In a notebook: %garcon connect tiny" in capsys.readouterr().out


def test_importing_the_module_does_not_hide_the_function() -> None:
    import importlib

    function = garcon.launch
    importlib.import_module("garcon_jupyter.launch")
    assert garcon.launch is function and callable(garcon.launch)
