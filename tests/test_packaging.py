"""The wheel: what is in it, and that a type checker believes it."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
PACKAGES = ("garcon_jupyter", "garcon_backend")

SCRIPT = """\
import garcon_jupyter as garcon
import garcon_backend.distributed.mesh

rmodel = garcon.launch_and_connect("smollm2")
reveal_type(rmodel)
reveal_type(rmodel.encode("Hello"))
reveal_type(rmodel.probe_points["layers.4.resid_post"])
rmodel.recordings().nothing_of_this_name
garcon.launch("smollm2", "mine", tp="two", memry="8GiB", idle_timeout="30m")
"""
"""A user's script; the last two lines are wrong, and the checker must see it."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as pip would build it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def unpacked(wheel: Path, tmp_path: Path) -> tuple[Path, Path]:
    """(interpreter, site-packages) of an environment in which the wheel's files lie and nothing else."""
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return tmp_path / "venv" / "bin" / "python", site


def checked(interpreter: Path, folder: Path) -> str:
    """What mypy says of the user's script, where the packages are installed and not its own."""
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    options = ["--python-executable", str(interpreter), "--cache-dir", str(folder / "cache")]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", *options, "script.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_both_packages_are_in_the_wheel_whole(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package, folder in zip(PACKAGES, (ROOT, ROOT / "backend"), strict=True):
        assert f"{package}/py.typed" in names
        here = {str(file.relative_to(folder)) for file in (folder / package).rglob("*.py")}
        assert here <= names and len(here) > 40
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]


def test_a_users_script_is_checked_against_our_types(
    unpacked: tuple[Path, Path], tmp_path: Path
) -> None:
    interpreter, _ = unpacked
    said = checked(interpreter, tmp_path)
    revealed = [line.rsplit(" ", 1)[1] for line in said.splitlines() if "Revealed type" in line]
    names = [text.strip('"').rsplit(".", 1)[1] for text in revealed]
    assert names == ["RemoteModel", "Tokens", "ProbePoint"], said
    assert '"Recordings" has no attribute "nothing_of_this_name"' in said
    assert 'Unexpected keyword argument "memry" for "launch"' in said
    assert 'Argument "tp" to "launch" has incompatible type "str"' in said
    assert said.count(": error: ") == 3 and "py.typed" not in said


def test_without_the_marker_nothing_is_checked(unpacked: tuple[Path, Path], tmp_path: Path) -> None:
    """What users of a wheel without it would see: the wrong line passes."""
    interpreter, site = unpacked
    for package in PACKAGES:
        (site / package / "py.typed").unlink()
    said = checked(interpreter, tmp_path)
    assert "missing library stubs or py.typed marker" in said
    assert "nothing_of_this_name" not in said
