"""Which files a word means: a path on this machine, or a folder of a repository of the Hugging Face hub.

A hub id is ``org/name``, or ``org/name/folder`` for one of many dictionaries in a repository. It is taken from the hub's local
cache where it is there; else it is asked for, once, and only what lies in that folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from garcon_jupyter.errors import FetchFailed, NotADictionary

_HUB_ID = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?P<folder>(/[\w.-]+)*)/?"
)
_FILES = ("*.json", "*.yaml", "*.safetensors", "*.npz", "*.pt")

Progress = Callable[[str], object]


def locate(word: str | os.PathLike[str], progress: Progress = print) -> Path:
    """The directory or file that a word means.

    Args:
        word: a path, or a hub id with or without a folder.
        progress: told one sentence before the hub is asked.

    Raises:
        NotADictionary: it is neither.
        FetchFailed: it is a hub id, and could not be fetched.
    """
    where = Path(os.fspath(word)).expanduser()
    if where.exists():
        return where.resolve()
    found = _HUB_ID.fullmatch(os.fspath(word))
    if found is None or os.path.lexists(where):
        raise NotADictionary(
            f"There is no {where}.",
            "Give the file or directory of a dictionary, or a hub id such as org/name/folder.",
        )
    return _from_hub(found["repository"], found["folder"].strip("/"), progress)


def _from_hub(repository: str, folder: str, progress: Progress) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    wanted = [f"{folder}/{pattern}" if folder else pattern for pattern in _FILES]
    wanted += [folder] if folder else []
    named = "/".join(filter(None, (repository, folder)))
    try:
        return _inside(Path(snapshot_download(repository, local_files_only=True)), folder, named)
    except (OSError, NotADictionary) as error:  # none of it is here, or a part
        if constants.HF_HUB_OFFLINE:
            raise FetchFailed(
                f"{named!r} is no path here, and not in the hub's local cache.",
                "The hub was not asked, as HF_HUB_OFFLINE is set; without that it is.",
            ) from error
    progress(f"Asking the Hugging Face hub for {named}.")
    try:
        return _inside(Path(snapshot_download(repository, allow_patterns=wanted)), folder, named)
    except RepositoryNotFoundError as error:
        raise NotADictionary(
            f"{named!r} is no path here, and the hub has no {repository} (or keeps it private).",
            "Give the file or directory of a dictionary, or another hub id.",
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise FetchFailed(
            f"{named!r} is no path here; as a hub id it needs network, and the hub, which was asked, cannot be reached.",
            "Without network, give the file or directory of a dictionary.",
        ) from error


def _inside(snapshot: Path, folder: str, named: str) -> Path:
    where = snapshot / folder
    if not where.exists():
        holds = sorted(entry.name for entry in snapshot.iterdir())[:4]
        raise NotADictionary(
            f"What the hub has of {named} is without {folder}; it holds {', '.join(holds) or 'nothing'}.",
            "Give a folder that is there.",
        )
    return where
