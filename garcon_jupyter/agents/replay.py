"""The log of a session as a notebook: its cells, in plain Python, give the numbers that the agent was told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pprint import pformat
from typing import Any

from garcon_jupyter.operations.table import OPERATIONS

WIDTH = 96


@dataclass(frozen=True)
class LoggedLook:
    """A request that was answered.

    Attributes:
        number: of the looks of its session, from 1; what takes no pass has the number of the last.
        operation: its name.
        request: as it was asked, without what is so by default.
        told: what the agent was told.
        seed: of the control; None where there was none.
    """

    number: int
    operation: str
    request: Mapping[str, Any]
    told: Mapping[str, Any]
    seed: int | None = None


def notebook(looks: Sequence[LoggedLook], path: str, server: str) -> str:
    """A notebook, as JSON.

    Args:
        path: of the model.
        server: its name.
    """
    begin = [
        "import garcon_jupyter as garcon",
        "from garcon_jupyter import experiments",
        "from garcon_jupyter.agents.controls import control",
        "from garcon_jupyter.operations.operation import Door",
        "from garcon_jupyter.operations.table import OPERATIONS",
        "",
        f"rmodel = garcon.launch_and_connect({path!r}, name={server!r})",
        "door = Door(rmodel)",
    ]
    words = (
        f"# What an agent asked of {server}\n\n{len(looks)} requests. Each cell gives the numbers that the agent was told, which "
        "stand above it in short."
    )
    cells = [_cell("markdown", words, "about"), _cell("code", "\n".join(begin), "begin")]
    for index, look in enumerate(looks, 1):
        told = json.dumps(look.told, indent=1, ensure_ascii=False)
        words = f"## {index}. `{look.operation}`\n\n```json\n{told}\n```"
        cells.append(_cell("markdown", words, f"told-{index}"))
        cells.append(_cell("code", source(look, index), f"look-{index}"))
    document = {
        "cells": cells,
        "metadata": {"language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _cell(kind: str, text: str, name: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "id": name, "metadata": {}, "source": text}
    return cell | {"execution_count": None, "outputs": []} if kind == "code" else cell


def source(look: LoggedLook, index: int) -> str:
    """The code of a look; what it finds is `found_INDEX`, and its control `control_INDEX`."""
    request, name = dict(look.request), look.operation
    write = _WRITTEN.get(name)
    code = write(request) if write is not None else None
    if code is None:
        code = f'OPERATIONS["{name}"](door, {_literal(request)})'
    lines = [f"found_{index} = {code}"]
    if look.seed is not None:
        asked = f'OPERATIONS["{name}"].request(**{_literal(request)})'
        lines += [
            f"asked_{index} = {asked}",
            f'answer_{index} = OPERATIONS["{name}"](door, asked_{index})',
            f'control_{index} = control(door, "{name}", asked_{index}, answer_{index}, seed={look.seed})',
        ]
    return "\n".join([*lines, f"found_{index}"])


def _literal(value: Any) -> str:
    return pformat(value, width=WIDTH, sort_dicts=False)


def _call(function: str, *given: Any, **named: Any) -> str:
    words = [_literal(each) for each in given]
    words += [f"{name}={_literal(value)}" for name, value in named.items() if value is not None]
    return f"{function}({', '.join(words)})"


def _experiment(name: str, texts: Sequence[str], renamed: Mapping[str, str]) -> Any:
    """Writes an experiment as its own function; None where a request has what only the operation takes."""
    defaults = {
        word: field.default
        for word, field in OPERATIONS[name].request.model_fields.items()
        if not field.is_required() and word != "form"
    }

    def write(request: dict[str, Any]) -> str | None:
        of_changed = request.get("splice") or request.get("edits")
        if of_changed or any(not isinstance(request[text], str) for text in texts):
            return None
        asked = {**defaults, **request}
        for word in ("form", "splice", "edits"):
            asked.pop(word, None)
        given = [asked.pop(text) for text in texts]
        if name == "effects":
            targets, others = asked.pop("targets"), asked.pop("distractors")
            if len(targets) > 1 or len(others) > 1 or (others and not targets):
                return None
            given.append(asked.pop("of"))
            asked["answers"] = [*targets, *others] or None
        if name == "patch":
            points = asked.pop("points")
            given.append(points if len(points) > 1 else points[0])
            asked["progress"] = False
        function = renamed.get(name, name)
        return _call(f"experiments.{function}", "RMODEL", *given, **asked).replace(
            "'RMODEL'", "rmodel", 1
        )

    return write


def _generate(request: dict[str, Any]) -> str | None:
    if set(request) - {"prompts", "max_new_tokens"} or not isinstance(request["prompts"], str):
        return None
    new = request.get(
        "max_new_tokens", OPERATIONS["generate"].request.model_fields["max_new_tokens"].default
    )
    text = request["prompts"]
    return f"rmodel.generate(rmodel.encode({text!r}), max_new_tokens={new}, do_sample=False)"


def _tokenize(request: dict[str, Any]) -> str:
    special = request.get("special", True)
    return f"rmodel.encode({_literal(request['texts'])}, special={special})"


_RENAMED = {"lens": "read_lens"}

_WRITTEN: dict[str, Callable[[dict[str, Any]], str | None]] = {
    **{
        name: _experiment(name, ["prompt"], _RENAMED)
        for name in ("lens", "direct_logit_attribution", "effects")
    },
    **{
        name: _experiment(name, ["clean", "corrupted"], _RENAMED) for name in ("patch", "attribute")
    },
    "head_scores": _experiment("head_scores", [], _RENAMED),
    "generate": _generate,
    "tokenize": _tokenize,
}
"""Operations that a cell writes as a call of their own; of the others it asks the table."""
