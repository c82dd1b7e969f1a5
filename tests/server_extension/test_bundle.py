"""The built side bar: small, made from these sources, and in the wheel with what enables it."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "labextension"
BUNDLE = ROOT / "garcon_jupyter" / "labextension"


def test_the_bundle_is_made_from_these_sources() -> None:
    now = runpy.run_path(str(SOURCES / "digest.py"))
    assert now["STAMP"].read_text().strip() == now["digest"](), "Run `make side-bar`."


def test_the_bundle_is_small_and_whole() -> None:
    built = json.loads((BUNDLE / "package.json").read_text())
    source = json.loads((SOURCES / "package.json").read_text())
    assert (built["name"], built["version"]) == (source["name"], source["version"])
    static = BUNDLE / "static"
    assert (BUNDLE / built["jupyterlab"]["_build"]["load"]).is_file()
    total = sum(file.stat().st_size for file in static.iterdir())
    assert 20_000 < total < 300_000
    # Of everything that JupyterLab has, nothing is bundled again.
    code = "".join(file.read_text() for file in static.glob("*.js"))
    assert "react-dom" not in code and "createRoot" not in code


def test_no_host_is_named() -> None:
    """Neither where packages came from, nor anything a browser would load."""
    lock = (SOURCES / "yarn.lock").read_text()
    assert not re.search(r"https?:|resolved", lock)
    urls = re.compile(r"https?://[\w.-]+")
    for file in BUNDLE.rglob("*.js"):
        assert set(urls.findall(file.read_text())) <= {"http://www.w3.org"}, file


@pytest.mark.processes
def test_the_wheel_brings_both_extensions(tmp_path: Path) -> None:
    """Without Node: its bundle is taken as it is."""
    environment = {**os.environ, "HATCH_JUPYTER_BUILDER_SKIP_NPM": "1"}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    data = f"{wheel.name.rsplit('-py3', 1)[0]}.data/data"
    share = f"{data}/share/jupyter/labextensions/garcon-jupyter"
    assert {f"{share}/package.json", f"{share}/install.json"} <= set(names)
    load = json.loads((BUNDLE / "package.json").read_text())["jupyterlab"]["_build"]["load"]
    assert f"{share}/{load}" in names
    assert f"{data}/etc/jupyter/jupyter_server_config.d/garcon_jupyter.json" in names
    assert "garcon_jupyter/server_extension/handlers.py" in names
    assert not [name for name in names if "node_modules" in name]


def test_what_pip_has_installed_is_what_is_here() -> None:
    """Jupyter reads both extensions from below its own prefix."""
    prefix = Path(sys.prefix)
    config = prefix / "etc" / "jupyter" / "jupyter_server_config.d" / "garcon_jupyter.json"
    enabled = json.loads(config.read_text())["ServerApp"]["jpserver_extensions"]
    assert enabled == {"garcon_jupyter.server_extension": True}
    installed = prefix / "share" / "jupyter" / "labextensions" / "garcon-jupyter"
    stamps = [(place / "sources.sha256").read_text() for place in (BUNDLE, installed)]
    assert stamps[0] == stamps[1], "The installed side bar is another one: run `make setup`."
