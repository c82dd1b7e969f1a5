"""The table of operations as an OpenAPI 3.1 document: what clients in other languages are generated from."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import models_json_schema

from garcon_jupyter.operations.failures import Failure, status_of
from garcon_jupyter.operations.operation import Operation
from garcon_jupyter.operations.table import OPERATIONS, SUBJECTS

VERSION = "1"
"""Of the operations: a later one has routes of its own."""

PREFIX = f"/v{VERSION}/"
"""What stands before the name of an operation in its URL."""

COMMON = {
    401: "No token, or a wrong one.",
    403: "The page that asks, or the name by which the host is called, is not on the list of the door.",
    404: "There is no operation, point, unit or dictionary of that name; `nearest` has those that are like it.",
    413: "The request has more bytes than the limits allow.",
    422: "The request is none, or its arguments make no sense together.",
    499: "Whoever asked called it off.",
    500: "The door, or the model's own code, failed.",
    503: "The server is gone or starts anew, or too many requests wait: `Retry-After` says when to come back.",
    504: "What was waited for goes on beyond the time that it was given.",
    507: "It does not fit into memory; nothing was begun.",
}
"""What any operation may be answered with, beside its answer."""


def document() -> dict[str, Any]:
    """The document. It is made of the table alone, and is the same for every model."""
    kinds = [(kind, mode) for each in OPERATIONS.values() for kind, mode in _kinds(each)]
    distinct = [*dict.fromkeys([*kinds, (Failure, "serialization")])]
    _, schemas = models_json_schema(distinct, ref_template="#/components/schemas/{model}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Garçon",
            "version": VERSION,
            "description": "A served language model, asked in plain data. No code travels in a request.",
        },
        "tags": [{"name": subject} for subject in SUBJECTS],
        "paths": {
            f"{PREFIX}{each.name}": {"post": _path(subject, each)}
            for subject, several in SUBJECTS.items()
            for each in several
        },
        "components": {
            "schemas": dict(sorted(schemas["$defs"].items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def text() -> str:
    """The document as it lies in the tree."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def _kinds(each: Operation[Any, Any]) -> list[tuple[Any, Any]]:
    return [(each.request, "validation"), (each.answer, "serialization")]


def _path(subject: str, each: Operation[Any, Any]) -> dict[str, Any]:
    words = [each.more, f"Cost: {each.cost}.", f"Permission: {each.permission}."]
    if each.streams:
        words.append(f"With `Accept: text/event-stream` it tells meanwhile: {each.streams}.")
    answers: dict[str, Any] = {"200": _answer("What came of it.", each.answer.__name__)}
    if each.streams:
        answers["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    own: dict[int, str] = {}
    for kind in each.raises:
        before = own.get(status_of(kind("")), "")
        own[status_of(kind(""))] = f"{before} {kind.__name__}: {_first(kind)}".strip()
    for status, what in sorted({**COMMON, **own}.items()):
        answers[str(status)] = _answer(what, Failure.__name__)
    return {
        "operationId": each.name,
        "tags": [subject],
        "summary": each.what,
        "description": "\n\n".join(filter(None, words)),
        "requestBody": {"required": True, "content": _json(each.request.__name__)},
        "responses": answers,
    }


def _first(kind: type) -> str:
    return (kind.__doc__ or "").split("\n")[0]


def _answer(what: str, schema: str) -> dict[str, Any]:
    return {"description": what, "content": _json(schema)}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


if __name__ == "__main__":
    print(text(), end="")
