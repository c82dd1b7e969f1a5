"""``garcon doctor``: right on this machine, and it finds what is wrong."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.cli import app, doctor
from garcon_jupyter.cli.doctor import Finding, examine
from garcon_jupyter.servers.server import registry_directory


def wrong() -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine() if finding.level == "wrong"}


def test_this_machine_is_well(
    capsys: pytest.CaptureFixture[str], llama_server: garcon.Server
) -> None:
    assert wrong() == {}
    assert app.main(["doctor"]) == 0
    told = capsys.readouterr().out
    import torch

    assert f"torch {torch.__version__}" in told
    assert f"{registry_directory()}, mode 700" in told
    assert "tiny: LlamaForCausalLM" in told


def test_a_connection_file_that_others_can_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, llama_server: garcon.Server
) -> None:
    monkeypatch.setenv("GARCON_RUNTIME", str(tmp_path))
    (tmp_path / "open.json").write_text(llama_server.file.read_text())
    (tmp_path / "open.json").chmod(0o644)
    assert "chmod 600" in wrong()["registry"].remedy
    assert app.main(["doctor"]) == 1


def test_too_little_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(64 << 20, 0, 64 << 20))
    finding = wrong()["memory files"]
    assert "64.0 MiB free" in finding.text and "--shm-size" in finding.remedy


def test_a_package_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._version
    versions = {"transformers": "4.2.0", "plotly": None}
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, real(name)))
    found = wrong()
    assert "is 4.2.0" in found["transformers"].text
    assert found["transformers"].remedy.startswith("pip install 'transformers")
    assert "is missing" in found["plotly"].text


@pytest.mark.parametrize(
    ("torch", "transformers", "level", "text"),
    [
        ("2.13.0+cpu", "5.23.0", "ok", "have passed together"),
        ("2.14.0", "5.22.1", "ok", "each with other releases of the other"),
        ("2.99.0", "5.23.0", "note", "torch 2.99.0 has not been tested"),
        ("2.13.0", "5.99.0", "note", "transformers 5.99.0 has not been tested"),
    ],
)
def test_releases_that_were_tested_and_others(
    torch: str, transformers: str, level: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"torch": torch, "transformers": transformers}
    monkeypatch.setattr(doctor, "_version", versions.get)
    (finding,) = doctor._together()
    assert (finding.level, finding.subject) == (level, "tested") and text in finding.text
    assert bool(finding.remedy) == (level == "note")


def test_a_cache_without_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GARCON_CACHE", str(tmp_path))
    notes = [finding for finding in examine() if finding.subject == "models"]
    assert [finding.level for finding in notes] == ["note"]
    assert "garcon fetch smollm2" in notes[0].remedy
