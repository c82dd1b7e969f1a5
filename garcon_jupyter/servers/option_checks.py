"""Whether a launch can be asked for so: refused in a sentence, before anything is begun.

What a value means is checked by whoever reads it; here, that the words are those that there are, and that each value is
of the right kind.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from garcon_jupyter.errors import BadDegrees, BadRequest, UnknownName
from garcon_jupyter.servers.options import OPTIONS, Option
from garcon_jupyter.servers.settings import DEGREES

WRONG = {
    "text": ("text", "Give it as a text."),
    "number": ("whole number", "Give it as a whole number."),
    "truth": ("truth value", "Give True or False."),
    "list": ("list", "Give it as a list of texts."),
}
"""What a value of each kind is called, and how it is given."""


HOW = {
    "loader": "Write package.module:function.",
    "family": "Write the path of a TOML file, or package.module:NAME.",
}
"""How options are written whose values name something in a module."""

FILE = ".toml"
"""Ending of a family's file."""


def check_words(path: Any, words: Mapping[str, Any]) -> None:
    """Refuse what a launch cannot be asked for.

    Raises:
        UnknownName: there is no such word; names the nearest.
        BadRequest, BadDegrees: a value is of the wrong kind.
    """
    given = isinstance(path, (str, os.PathLike)) and (os.fspath(path) or words.get("loader"))
    if not given:
        raise BadRequest(
            f"{path!r} is no path of a model.", "Give smollm2, a directory, or a hub id, as a text."
        )
    for word, value in words.items():
        if word not in OPTIONS:
            raise UnknownName.among("option of a launch", word, OPTIONS, "help(garcon.launch)")
        if value is not None or OPTIONS[word].required:
            _check(OPTIONS[word], value)


def _check(option: Option, value: Any) -> None:
    word = option.name
    if not _is_of_its_kind(option, value):
        if word in DEGREES:
            raise BadDegrees(f"{word}={value!r} is no degree.", "Degrees are whole numbers from 1.")
        kind, how = WRONG[option.kind]
        how = HOW.get(word, how)
        raise BadRequest(f"{word}={value!r} is no {kind}.", how)
    if word == "loader" or (word == "family" and not value.endswith(FILE)):
        _check_in_module(word, value)
    if option.choices and value not in option.choices:
        raise BadRequest(f"There is no {word} {value!r}.", f"Use {' or '.join(option.choices)}.")


def _is_of_its_kind(option: Option, value: Any) -> bool:
    """Whether a value has the option's type; one that may be of several types is looked at by whoever reads it."""
    kind, *others = (each for each in option.types if each is not type(None))
    if others:
        return True
    if option.kind == "text":
        return isinstance(value, str) and value != ""
    if option.kind == "list":  # a text is a sequence of texts, and not meant as one
        return isinstance(value, kind) and not isinstance(value, str)
    return isinstance(value, kind) and isinstance(value, bool) == (option.kind == "truth")


def _check_in_module(word: str, value: str) -> None:
    """Refuse what cannot be the name of something in a module.

    Raises:
        BadRequest: says how it is written.
    """
    module, _, name = value.partition(":")
    if module.endswith(".py") or "/" in module:
        file = module.rpartition("/")[2].removesuffix(".py")
        raise BadRequest(
            f"{word}={value!r} names a file, and a module is wanted.",
            f"Write {file}:{name or 'function'}, with the directory of {file}.py on PYTHONPATH or beside the notebook.",
        )
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise BadRequest(f"{value!r} names no {word}.", HOW[word])


def absolute_family(value: str) -> str:
    """A family as any process can find it: of a file its whole path.

    Raises:
        BadRequest: there is no such file.
    """
    if not value.endswith(FILE):
        return value
    path = Path(value).expanduser().absolute()
    if not path.is_file():
        raise BadRequest(f"There is no family file {value}.", f"It was looked for at {path}.")
    return str(path)
