"""``garcon doctor``: what this machine has, what is wrong with it, and what to do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from garcon_jupyter.amounts import sized
from garcon_jupyter.connection.connection_file import read_connection_file
from garcon_jupyter.display import listings
from garcon_jupyter.errors import BadConnectionFile, GarconError
from garcon_jupyter.libraries import releases
from garcon_jupyter.model_files.embedded import EMBEDDED, cache_dir, is_whole
from garcon_jupyter.servers import control, registry
from garcon_jupyter.servers.server import registry_directory
from garcon_jupyter.wire.shared_files import shared_memory_root

Level = Literal["ok", "note", "wrong"]

PACKAGES = ("torch", "transformers", "ipykernel", "jupyter_client", "anywidget")
"""Those whose versions explain most surprises; all others are checked without being listed."""

ROOMY = 1 << 30
"""Bytes of shared memory below which fetching large tensors may fail."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: "ok"; "note", worth knowing; "wrong", to be mended.
        subject: what was looked at.
        text: what was found.
        remedy: what to do about it.
    """

    level: Level
    subject: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        mark = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}[self.level]
        remedy = f"\n{' ' * 20}→ {self.remedy}" if self.remedy else ""
        return f"{mark}  {self.subject:<12} {self.text}{remedy}"


def examine() -> Iterator[Finding]:
    """Everything there is to say about this machine."""
    yield Finding("ok", "python", f"{platform.python_version()}, {platform.system()}")
    yield from _packages()
    yield from _together()
    yield from _devices()
    yield from _registry()
    yield from _shared_memory()
    yield from _cache()
    yield from _servers()


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    listed = [f"{name} {_version(name)}" for name in PACKAGES if _version(name)]
    yield Finding("ok", "packages", ", ".join(listed))
    for line in importlib.metadata.requires("garcon-jupyter") or ():
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if version is None or version not in requirement.specifier:
            found = f"is {version}" if version else "is missing"
            needed = f"{requirement.name}{requirement.specifier}"
            yield Finding(
                "wrong",
                requirement.name,
                f"{found}; {needed} was tested",
                f"pip install '{needed}'",
            )


def _together() -> Iterator[Finding]:
    """Whether torch and transformers are a pair that Garçon was tested with."""
    torch, transformers = _version("torch"), _version("transformers")
    if torch is None or transformers is None:
        return  # which was said
    new = list(releases.untested(torch, transformers))
    for line in new:
        library = line.split()[0]
        needed = f"{library}{releases.specifier(library)}"
        yield Finding("note", "tested", line, f"pip install '{needed}', if something is odd.")
    pair = f"torch {torch} and transformers {transformers}"
    if not new and releases.tested_together(torch, transformers):
        yield Finding("ok", "tested", f"{pair} have passed together")
    elif not new:
        yield Finding("ok", "tested", f"{pair} have passed, each with other releases of the other")


def _version(name: str) -> str | None:
    return releases.installed(name)


def _devices() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    import psutil
    import torch

    cores, memory = os.cpu_count() or 1, psutil.virtual_memory()
    yield Finding(
        "ok",
        "cpu",
        f"{cores} cores, {sized(memory.available)} of {sized(memory.total)} free",
    )
    if not torch.cuda.is_available():
        yield Finding("note", "gpu", "torch sees none: models run on the CPU, in one process")
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        yield Finding(
            "ok",
            f"cuda:{number}",
            f"{name}, {sized(free)} of {sized(total)} free",
        )


def _registry() -> Iterator[Finding]:
    try:
        directory = registry_directory()
        mode = stat.S_IMODE(directory.stat().st_mode)
        writable = os.access(directory, os.W_OK | os.X_OK)
    except OSError as error:
        yield Finding(
            "wrong",
            "registry",
            f"cannot be made: {error}",
            "Set GARCON_RUNTIME to a directory of your own.",
        )
        return
    if not writable or mode & 0o077:
        remedy = "Set GARCON_RUNTIME to a directory of your own, on a file system with modes."
        yield Finding("wrong", "registry", f"{directory} has mode {mode:o}", remedy)
    else:
        yield Finding("ok", "registry", f"{directory}, mode {mode:o}")
    for file in sorted(directory.glob("*.json")):
        if file.name.endswith(".tombstone.json"):
            continue
        try:
            read_connection_file(file)
        except BadConnectionFile as error:
            yield Finding("wrong", "registry", error.problem, error.remedy)


def _shared_memory() -> Iterator[Finding]:
    root = shared_memory_root()
    free = shutil.disk_usage(root).free
    text = f"{root}, {sized(free)} free"
    if free < ROOMY:
        remedy = "Give it more (docker run --shm-size=8g), or fetch slices of large tensors."
        yield Finding("wrong", "memory files", text, remedy)
    else:
        yield Finding("ok", "memory files", text)


FIRST = "smollm2"
"""The embedded model that examples begin with; nobody needs the others who does not ask for them."""


def _cache() -> Iterator[Finding]:
    models = cache_dir().absolute() / "models"
    for model in EMBEDDED.values():
        if is_whole(models / model.name, model):
            used = sum(file.stat().st_size for file in (models / model.name).iterdir())
            yield Finding("ok", "models", f"{model.name} is in {models}, {sized(used)}")
        elif model.name == FIRST:
            yield Finding(
                "note",
                "models",
                f"{model.name} is not in {models} yet",
                f"garcon fetch {model.name} (once, {sized(model.download_bytes)}).",
            )
    if not _can_write(models):
        yield Finding(
            "wrong", "models", f"{models} cannot be written to", "Set GARCON_CACHE to one that can."
        )


def _can_write(directory: Path) -> bool:
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    return os.access(existing, os.W_OK | os.X_OK)


def _servers() -> Iterator[Finding]:
    running = registry.servers()
    if not running:
        yield Finding("ok", "servers", "none run")
    for server in running:
        try:
            told = control.status(server)
        except GarconError as error:
            yield Finding("wrong", "servers", error.problem, error.remedy)
            continue
        doing = told["running"]["kind"] if told["running"] else "nothing"
        text = f"{server.name}: {listings.model_line(server.facts)}; runs {doing}"
        yield Finding("ok", "servers", text)
