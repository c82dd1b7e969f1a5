"""The form of the launch dialog: the fields that it has, and what comes back when it is filled in.

Both are made from the options of a launch (:mod:`garcon_jupyter.servers.options`): from those with a field.
"""

from __future__ import annotations

from typing import Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.servers.option_forms import told
from garcon_jupyter.servers.options import OPTIONS, Field, Option


def asked() -> dict[str, Option]:
    """The options that the dialog asks for; the others need a terminal or a notebook."""
    return {name: option for name, option in OPTIONS.items() if option.field}


def fields() -> list[dict[str, Any]]:
    """The fields beside that of the model, in their order.

    Each is ``{"word", "label", "meaning", "kind", "initial", "unset", "choices"}``: the option, what stands beside the
    field and what explains it, "text" or "number", what is filled in, what an empty field says, and values to choose
    among, ``{"value", "text"}``; none where the value is written.
    """
    return [_field(option, option.field) for option in asked().values() if option.field]


def _field(option: Option, field: Field) -> dict[str, Any]:
    choices = (
        field.choices
        if option.required or not field.choices
        else (("", field.unset), *field.choices)
    )
    return {
        "word": option.name,
        "label": field.label,
        "meaning": told(option),
        "kind": option.kind,
        "initial": option.default or "",
        "unset": field.unset,
        "choices": [{"value": value, "text": text} for value, text in choices],
    }


def checked(words: Any) -> dict[str, Any]:
    """The words of a launch as :func:`garcon_jupyter.launch` takes them; what is empty is left out.

    Raises:
        BadRequest: it is no object, a word is unknown or of the wrong type, or there is no path.
    """
    if not isinstance(words, dict):
        raise BadRequest("A launch takes a JSON object.", 'Such as {"path": "smollm2"}.')
    types = {"path": (str,), **{name: option.types for name, option in asked().items()}}
    if unknown := sorted(set(words) - set(types)):
        raise BadRequest(f"A launch takes no {unknown[0]!r}.", f"It takes {', '.join(types)}.")
    given = {word: value for word, value in words.items() if value not in (None, "")}
    for word, value in given.items():
        number = int in types[word] or float in types[word]
        taken = (*types[word], int) if number else types[word]
        if not isinstance(value, taken) or isinstance(value, bool):
            raise BadRequest(f"{word} is {value!r}.", f"Give {'a number' if number else 'a text'}.")
    if "path" not in given:
        raise BadRequest("A launch needs a path.", "smollm2 is a model that comes with Garçon.")
    return given
