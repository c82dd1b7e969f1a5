"""Adapters: small weights that change what a model computes, as PEFT writes them, before any of them is read.

A LoRA adapter (Hu et al. 2021) is a directory: ``adapter_config.json`` says which modules it changes and by how much,
``adapter_model.safetensors`` (or ``.bin``) has two thin matrices for each, A [r, in] and B [out, r]. A module then
puts out W·x + s·B·A·x. What such a directory can ask for beyond that is a long list, which grows with PEFT; here it is said
which of it is computed, and all else is refused by its name, since an adapter of which a part is left out is another
adapter.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from garcon_jupyter.errors import BadRequest, NotAModel, NotAnAdapter

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*")
_FORMS = 'Give a directory, "NAME=DIRECTORY", several of these, or a dictionary {name: directory}.'

_MERGE = "Merge it into its base model (`merge_and_unload` in peft), save that and give it."

COMPUTED = frozenset(
    {
        *("peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("modules_to_save", "bias", "lora_bias", "use_dora", "fan_in_fan_out"),
    }
)
"""Fields of a configuration that are taken into account: by their value, or by what the weights hold because of them."""

OF_TRAINING = frozenset(
    {
        *("task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"),
        *("lora_dropout", "peft_version", "runtime_config", "megatron_config", "megatron_core"),
        *("eva_config", "corda_config", "loftq_config", "lora_ga_config", "qalora_group_size"),
    }
)
"""Fields that say how an adapter came to be, and change nothing of what it computes."""

STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that leave the base model's weights as they are. Others, such as "pissa", take something
out of them that the adapter puts back: it would be wrong on the published base."""


def named(given: Any) -> dict[str, str]:
    """The adapters that a launch asks for: directory by name, absolute.

    Args:
        given: a directory, which gives its own name; ``NAME=DIRECTORY``; several of these; or a mapping.

    Raises:
        BadRequest: it is none of these, or two have one name.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        pairs = list(given.items())
    else:
        one = isinstance(given, (str, os.PathLike))
        if not one and not isinstance(given, Sequence):
            raise BadRequest(f"adapter={given!r} is no adapter.", _FORMS)
        pairs = [_parted(each) for each in ([given] if one else given)]
    found: dict[str, str] = {}
    for name, path in pairs:
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise BadRequest(f"adapter={path!r} is no directory of an adapter.", _FORMS)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadRequest(
                f"{name!r} is no name of an adapter.",
                "Use letters, digits, and . _ - +: NAME=DIRECTORY.",
            )
        if name in found:
            raise BadRequest(
                f"Two adapters are called {name!r}: {found[name]} and {path}.",
                "Give each a name: NAME=DIRECTORY.",
            )
        found[name] = str(Path(path).expanduser().resolve())
    return found


def _parted(given: Any) -> tuple[Any, Any]:
    """Name and directory of one adapter."""
    if not isinstance(given, (str, os.PathLike)):
        raise BadRequest(f"adapter={given!r} is no directory of an adapter.", _FORMS)
    word = os.fspath(given)
    name, equals, path = word.partition("=")
    if equals and _NAME.fullmatch(name) and not Path(word).expanduser().exists():
        return name, path
    return Path(word).expanduser().resolve().name, given


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration of an adapter all of which can be computed, and whose weights are there.

    Raises:
        NotAnAdapter: says what it is instead, or what it asks for.
    """
    file = directory / CONFIG
    if not file.is_file():
        raise _no_config(directory)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise NotAnAdapter(f"{file} is not JSON: {error}.", "Copy the adapter again.") from error
    if not isinstance(config, dict):
        raise NotAnAdapter(
            f"{file} holds a {type(config).__name__}, not an object.", "Copy the adapter again."
        )
    _check(config, directory)
    weights_file(directory)
    return config


def weights_file(directory: Path) -> Path:
    """The file with an adapter's weights.

    Raises:
        NotAnAdapter: there is none.
    """
    for name in WEIGHTS:
        if (directory / name).is_file():
            return directory / name
    raise NotAnAdapter(
        f"{directory} has a {CONFIG} but no weights: neither {' nor '.join(WEIGHTS)}.",
        "Copy the adapter again, whole.",
    )


def refuse_beside(directory: Path) -> None:
    """Refuse an adapter beside a whole model: which of the two models is meant, nobody can know.

    transformers applies it where peft is installed, and leaves it out without a word where it is not.

    Raises:
        NotAModel: names the file.
    """
    found = [name for name in (CONFIG, *WEIGHTS) if (directory / name).is_file()]
    if found:
        raise NotAModel(
            f"{directory} holds an adapter ({found[0]}) beside a whole model.",
            "Move the adapter's files to a directory of their own, and launch the model with adapter=DIRECTORY, "
            "or without it.",
        )


def _check(config: dict[str, Any], directory: Path) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise NotAnAdapter(
            f"{directory} is an adapter of the kind {kind}, and only LORA is computed here.", _MERGE
        )
    start = config.get("init_lora_weights")
    if start not in STARTS:
        raise NotAnAdapter(
            f"{directory} was begun with init_lora_weights={start!r}, which changed the base model's weights, "
            "so on the published ones it is another model.",
            "Convert it (`path_initial_model_for_weight_conversion` of PEFT's save_pretrained), or merge it.",
        )
    known = COMPUTED | OF_TRAINING | {"init_lora_weights"}
    unknown = sorted(word for word, value in config.items() if value and word not in known)
    if unknown:
        raise NotAnAdapter(
            f"{directory} asks for {unknown[0]}={config[unknown[0]]!r}, which is not computed here.",
            _MERGE,
        )


def _no_config(directory: Path) -> NotAnAdapter:
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        return NotAnAdapter(
            f"The adapter {directory} {what}.", f"Give the directory that holds {CONFIG}."
        )
    inside = sorted(each.parent.name for each in directory.glob(f"*/{CONFIG}"))
    if inside:
        return NotAnAdapter(
            f"{directory} is not an adapter but holds {len(inside)} of them.",
            f"Give one: {', '.join(str(directory / name) for name in inside[:4])}.",
        )
    if (directory / "config.json").is_file():
        return NotAnAdapter(
            f"{directory} holds a whole model, not an adapter.", "Launch it by itself."
        )
    return NotAnAdapter(
        f"{directory} has no {CONFIG}.", "Give a directory as PEFT's save_pretrained writes it."
    )
