"""What the path of a model means.

A user says which model by one word. :func:`resolve` turns it into a :class:`ModelDirectory`: a directory
with a ``config.json``, safetensors weights and, usually, a tokenizer, known to be a causal language
model whose files are whole. The word is one of three things, tried in this order:

1. the name of an embedded model (``smollm2``), fetched where it is not there yet;
2. a directory on this machine (write ``./smollm2`` for one with the name of an embedded model);
3. a Hugging Face hub id (``org/name``, or an old one such as ``gpt2``), from the local cache if it is
   there, else from the hub.

Anything else is refused with what it is and what to do. The checks read a few kilobytes, so that a
mistake is found in the notebook at once, and not by a server that starts for a minute and fails.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from garcon_jupyter.errors import FetchFailed, GarconError, NotAModel
from garcon_jupyter.model_files import adapters, own_code, quantised, weights
from garcon_jupyter.model_files.embedded import EMBEDDED, Progress, cache_dir, fetch
from garcon_jupyter.model_files.multimodal import WRAPPERS

__all__ = [
    "ModelDirectory",
    "cache_dir",
    "fetch",
    "parameter_count",
    "resolve",
    "server_name",
    "weight_bytes",
]

_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]{0,95}")
_HUB_CACHE = re.compile(r"models--(?:.*--)?(?P<name>.+)")
_HUB_PICKLES = ["pytorch_model*.bin"]
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]

_WHAT_WORKS = (
    f"Give an embedded model ({', '.join(EMBEDDED)}), a directory with a config.json and "
    f"safetensors, or, where there is network, a hub id such as EleutherAI/pythia-70m."
)


@dataclass(frozen=True)
class ModelDirectory:
    """A model on this machine.

    Attributes:
        path: its directory, absolute.
        name: what a person calls it; a server is named after it.
        source: where it came from.
        config: its ``config.json``.
    """

    path: Path
    name: str
    source: Literal["embedded", "directory", "hub"]
    config: dict[str, Any]


def resolve(
    path: str | os.PathLike[str],
    progress: Progress = print,
    architecture: bool = True,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> ModelDirectory:
    """The model that `path` means: an embedded name, a directory, or a hub id.

    Args:
        path: what the user said.
        progress: told one sentence at each step, where something has to be fetched.
        architecture: whether to ask transformers for its architecture, which takes seconds where it is not
            imported; else :func:`check_architecture` is called later.
        trust_remote_code: whether code that the checkpoint brings may run; from a hub it is fetched only then.
        revision: of a hub id: a branch, a tag or a commit; None for the main branch.

    Raises:
        NotAModel: it is none of these, or holds no model that can be served.
        FetchFailed: it is an embedded name or a hub id, and could not be fetched.
    """
    word = os.fspath(path).strip()
    try:
        if revision is not None:
            return _of_revision(word, revision, progress, architecture, trust_remote_code)
        return _resolve(word, progress, architecture, trust_remote_code)
    except GarconError:
        raise
    except OSError as error:  # no permission, a name too long, a file system that is gone
        raise NotAModel(
            f"{error.filename or word} cannot be read: {error.strerror or error}.", _WHAT_WORKS
        ) from error


def _resolve(
    word: str, progress: Progress, architecture: bool, trust_remote_code: bool
) -> ModelDirectory:
    if word.lower() in EMBEDDED:
        directory = fetch(word, progress)
        return ModelDirectory(directory, _name(directory), "embedded", _read_config(directory))
    where = Path(word).expanduser()
    if word and where.is_dir():
        return _checked(where.resolve(), "directory", architecture, trust_remote_code)
    if _HUB_ID.fullmatch(word) and not os.path.lexists(where) and where.suffix != ".gguf":
        return _from_hub(word, progress, architecture, trust_remote_code)
    raise _no_directory(word, where)


def _of_revision(
    word: str, revision: str, progress: Progress, architecture: bool, trust_remote_code: bool
) -> ModelDirectory:
    """A revision of a hub id, and of nothing else."""
    where = Path(word).expanduser()
    if word.lower() in EMBEDDED or os.path.lexists(where) or not _HUB_ID.fullmatch(word):
        raise NotAModel(
            f"{word!r} is no hub id, and has no revision {revision!r}.",
            "Revisions are of hub ids, such as EleutherAI/pythia-70m; give directories by label.",
        )
    return _from_hub(word, progress, architecture, trust_remote_code, revision)


def weight_bytes(snapshot: ModelDirectory) -> int:
    """Bytes of the snapshot's tensors in the dtypes they are stored in, from the files' headers."""
    return weights.total_bytes(weights.weight_files(snapshot.path))


def parameter_count(snapshot: ModelDirectory) -> int:
    """Number of the snapshot's parameters, tied ones once, from the files' headers."""
    return weights.total_parameters(weights.weight_files(snapshot.path))


def server_name(path: Path) -> str:
    """The automatic name of a server: the model's name and six digits of its resolved path's hash.

    Two directories of one name have two servers, and two ways to one directory have one.
    """
    resolved = path.expanduser().resolve()
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", _name(resolved)).strip("-.")[:48] or "model"
    return f"{safe}-{hashlib.sha256(os.fsencode(resolved)).hexdigest()[:6]}"


def _name(directory: Path) -> str:
    """The base name; in the hub's cache, whose directories are named by commit, the model's."""
    cached = _HUB_CACHE.fullmatch(directory.parent.parent.name)
    return cached["name"] if cached else directory.name


# A directory ------------------------------------------------------------------------------------


def _checked(
    directory: Path,
    source: Literal["directory", "hub"],
    architecture: bool,
    trust_remote_code: bool = False,
) -> ModelDirectory:
    """The snapshot in `directory`, its architecture known, if that is asked, and its weight files whole."""
    config = _read_config(directory)
    if architecture:
        check_architecture(directory, trust_remote_code)
    quantised.check(config, directory)
    adapters.refuse_beside(directory)
    for file in weights.weight_files(directory):
        weights.check_whole(file)
    return ModelDirectory(directory, _name(directory), source, config)


def _read_config(directory: Path) -> dict[str, Any]:
    file = directory / "config.json"
    if not file.is_file():
        raise _no_config(directory)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise NotAModel(f"{file} is not JSON: {error}.", "Copy the snapshot again.") from error
    if not isinstance(config, dict):
        raise NotAModel(
            f"{file} holds a {type(config).__name__}, not an object.", "Copy the snapshot again."
        )
    return config


def _no_config(directory: Path) -> NotAModel:
    """The error for a directory without config.json, by what else it holds."""
    holds = sorted(entry.name for entry in directory.iterdir())
    models = [name for name in holds if (directory / name / "config.json").is_file()]
    packed = [name for name in holds if name.endswith(".gguf")]
    if models:
        return NotAModel(
            f"{directory} is not a model but holds {len(models)} of them.",
            f"Give one: {', '.join(str(directory / name) for name in models[:4])}.",
        )
    if adapters.CONFIG in holds:
        return NotAModel(
            f"{directory} holds an adapter, not a whole model.",
            f"Launch its base model, with adapter={str(directory)!r} (--adapter {directory}).",
        )
    if packed:
        return _is_gguf(directory / packed[0])
    shown = ", ".join(holds[:4]) + (", …" if len(holds) > 4 else "")
    return NotAModel(
        f"{directory} is a directory without config.json"
        + (f"; it holds {shown}." if holds else ": it is empty."),
        "Give a directory as `save_pretrained` writes it.",
    )


def check_architecture(directory: Path, trust_remote_code: bool = False) -> None:
    """Refuse a model whose configuration transformers can make no causal language model of.

    Args:
        trust_remote_code: whether code that the checkpoint brings may run.

    Raises:
        NotAModel: says what it is, or the nearest architecture that there is.
    """
    if trust_remote_code and own_code.model_class(directory):
        return
    file, config = directory / "config.json", _read_config(directory)
    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise NotAModel(
            f"{file} has no model_type, so its architecture is unknown.",
            "Add it, or serve your own module with --loader package.module:function.",
        )
    known, causal = _architectures()
    if kind in causal or not causal:
        return
    if kind in known:
        raise NotAModel(
            f"{file} is of a {kind}, which is no causal language model.",
            "Give a model that predicts the next token, "
            "or serve it with --loader package.module:function.",
        )
    if own_code.model_class(directory):
        raise own_code.untrusted(directory)
    nearest = difflib.get_close_matches(kind, causal, n=2)
    hint = f"Did you mean {' or '.join(nearest)}? " if nearest else ""
    raise NotAModel(
        f"{file} has the model_type {kind!r}, which transformers does not know.",
        f"{hint}Code of its own is served with --loader package.module:function.",
    )


@functools.cache
def _architectures() -> tuple[Collection[str], Collection[str]]:
    """All model types of transformers, and those that predict a next token; none without it."""
    try:
        from transformers import CONFIG_MAPPING
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    except ImportError:  # a notebook without it: the server will tell
        return (), ()
    return tuple(CONFIG_MAPPING), {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *WRAPPERS}


# No directory -----------------------------------------------------------------------------------


def _no_directory(word: str, where: Path) -> NotAModel:
    """The error for a word that is neither an embedded name, nor a directory, nor a hub id."""
    if not word:
        return NotAModel("No model was named.", _WHAT_WORKS)
    if where.suffix == ".gguf" and where.is_file():
        return _is_gguf(where)
    if where.is_file():
        return NotAModel(f"{where} is a file, not a model's directory.", _suggest(where.parent))
    if where.is_symlink():
        return NotAModel(f"{where} is a link to {where.readlink()}, which is missing.", _WHAT_WORKS)
    return NotAModel(f"{_missing(where)}.", _did_you_mean(str(where)) + _WHAT_WORKS)


def _is_gguf(file: Path) -> NotAModel:
    return NotAModel(
        f"{file} is a GGUF file, which has to be converted before it is served.",
        f"Run `python -m garcon_backend.models.convert_gguf {file} DIRECTORY` and give DIRECTORY.",
    )


def _suggest(directory: Path) -> str:
    if (directory / "config.json").is_file():
        return f"Give the directory that it is in: {directory}."
    return _WHAT_WORKS


def _missing(where: Path) -> str:
    """Which part of a path is the first that is not there."""
    first = next(part for part in [*reversed(where.parents), where] if not part.exists())
    if first == where:
        return f"There is no {where}"
    return f"There is no {where}: {first} does not exist"


def _nearest(where: Path) -> list[str]:
    """Embedded names, and models beside `where`, with a name much like it."""
    known = {name: name for name in EMBEDDED}
    if where.parent.is_dir():
        beside = [e for e in where.parent.iterdir() if (e / "config.json").is_file()]
        known |= {entry.name.lower(): str(entry) for entry in beside}
    return [known[name] for name in difflib.get_close_matches(where.name.lower(), known, n=3)]


# A hub id ---------------------------------------------------------------------------------------


def _from_hub(
    repository: str,
    progress: Progress,
    architecture: bool,
    trust_remote_code: bool,
    revision: str | None = None,
) -> ModelDirectory:
    """The snapshot of a hub id: the copy in the hub's local cache, else fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(repository, revision=revision, local_files_only=True))
        return _checked(cached, "hub", architecture, trust_remote_code)
    except (LocalEntryNotFoundError, NotAModel):
        pass  # none of it is here, or a part: the hub may have the rest
    except HFValidationError as error:
        raise NotAModel(
            f"{repository!r} is no directory here and cannot be a hub id.", _WHAT_WORKS
        ) from error
    fetched = _download(
        repository, progress, trust_remote_code, revision
    )  # what the cache has, where there is no network
    try:
        return _checked(fetched, "hub", architecture, trust_remote_code)
    except NotAModel as error:
        raise NotAModel(
            f"What the hub's local cache has of {repository} cannot be served: {error.problem}",
            "If that is not all that the hub has, try again with network; else give another model.",
        ) from error


def _download(
    repository: str, progress: Progress, trust_remote_code: bool, revision: str | None = None
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    named = repository if revision is None else f"{repository} at {revision}"
    if why := _offline():
        try:  # a part of it may be here, and says more than that the rest is not
            return Path(snapshot_download(repository, revision=revision, local_files_only=True))
        except OSError as error:
            raise _not_asked(repository, why, revision) from error
    progress(f"Asking the Hugging Face hub for {named}.")
    try:
        wanted = [*_HUB_FILES, "*.py"] if trust_remote_code else _HUB_FILES
        asked = partial(snapshot_download, repository, revision=revision, ignore_patterns="*/*")
        fetched = asked(allow_patterns=wanted)
        if not any(Path(fetched).glob("*.safetensors")):  # older than these, or none at all
            asked(allow_patterns=_HUB_PICKLES)
        return Path(fetched)
    except GatedRepoError as error:
        raise FetchFailed(
            f"The hub gives {repository} only to those who accepted its licence.",
            f"Accept it at https://huggingface.co/{repository} and run `hf auth login`.",
        ) from error
    except RevisionNotFoundError as error:
        raise NotAModel(
            f"The hub's {repository} has no revision {revision!r}.",
            "Give a branch, a tag or a commit that its page lists.",
        ) from error
    except RepositoryNotFoundError as error:
        raise NotAModel(
            f"{repository!r} is no directory here, and the hub has no model of that name "
            f"(or keeps it private).",
            _did_you_mean(repository) + _WHAT_WORKS,
        ) from error
    except (HfHubHTTPError, OSError) as error:  # the hub's errors of connection are OSErrors
        raise FetchFailed(
            f"{repository!r} is no directory here; as a hub id it needs network, and the hub, which "
            f"was asked, cannot be reached ({_cause(error)}).",
            f"{_did_you_mean(repository)}Without network, give an embedded model "
            f"({', '.join(EMBEDDED)}) or a directory.",
        ) from error


def _offline() -> str:
    """Which setting forbids to ask the hub, or nothing."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        return ""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return f"{next((name for name in names if os.environ.get(name)), names[0])} is set"


def _not_asked(repository: str, why: str, revision: str | None = None) -> GarconError:
    """The error for what may be a hub id, where the hub must not be asked."""
    not_asked = f"The hub was not asked, as {why}; without that it is."
    if revision is not None:
        return FetchFailed(
            f"The hub's local cache has no revision {revision!r} of {repository!r}.",
            f"{not_asked} Or give directories by label.",
        )
    if "/" not in repository:  # as likely a name that was mistyped
        return NotAModel(
            f"There is no {repository}.", f"{_did_you_mean(repository)}{not_asked} {_WHAT_WORKS}"
        )
    return FetchFailed(
        f"{repository!r} is no directory here, and not in the hub's local cache.",
        f"{not_asked} Or give an embedded model ({', '.join(EMBEDDED)}) or a directory.",
    )


def _did_you_mean(word: str) -> str:
    nearest = _nearest(Path(word).expanduser())
    return f"Did you mean {' or '.join(nearest)}? " if nearest else ""


def _cause(error: BaseException) -> str:
    """The first line of what lies at the bottom of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).partition("\n")[0] or type(error).__name__
