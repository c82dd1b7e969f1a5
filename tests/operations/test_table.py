"""The table: what is declared agrees with itself, and nothing in it is code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from garcon_jupyter import errors
from garcon_jupyter.operations.failures import INVALID, STATUSES, failure, status_of
from garcon_jupyter.operations.limits import RequestLimits
from garcon_jupyter.operations.openapi import COMMON, document, text
from garcon_jupyter.operations.operation import Door
from garcon_jupyter.operations.plain_data import Plain, PlainAnswer
from garcon_jupyter.operations.table import OPERATIONS, SUBJECTS, named


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_is_declared_whole(name: str) -> None:
    each = OPERATIONS[name]
    assert each.name == name == each.work.__name__
    assert each.what.endswith(".") and each.cost and not each.cost.endswith(".")
    assert issubclass(each.request, Plain) and issubclass(each.answer, PlainAnswer)
    assert each.request.__doc__ and each.answer.__doc__
    assert all(issubclass(kind, errors.GarconError) for kind in each.raises)


def test_names_of_schemas_are_unique() -> None:
    kinds = {kind for each in OPERATIONS.values() for kind in (each.request, each.answer)}
    assert len({kind.__name__ for kind in kinds}) == len(kinds)


def test_each_subject_has_some() -> None:
    assert sum(map(len, SUBJECTS.values())) == len(OPERATIONS)


def test_an_unknown_name_has_the_nearest() -> None:
    with pytest.raises(errors.UnknownName, match="forward"):
        named("foward")


def test_the_document_has_every_operation_and_error() -> None:
    told = document()
    assert text() == text() and json.loads(text()) == told
    ids = [path["post"]["operationId"] for path in told["paths"].values()]
    assert ids == list(OPERATIONS) and len(set(ids)) == len(ids)
    for name, each in OPERATIONS.items():
        post = told["paths"][f"/v1/{name}"]["post"]
        assert {int(status) for status in post["responses"]} >= {200, *COMMON}
        for kind in each.raises:
            assert str(status_of(kind("no"))) in post["responses"]
    text_of_all = json.dumps(told)
    assert "$defs" not in text_of_all, "a reference that leads nowhere"
    for part in text_of_all.split('"#/components/schemas/')[1:]:
        assert part.split('"')[0] in told["components"]["schemas"]


def test_tuples_and_literals_survive() -> None:
    schemas = document()["components"]["schemas"]
    reduce = schemas["Read"]["properties"]["reduce"]
    assert reduce["enum"] == ["none", "norm", "mean", "max", "min", "sum", "strongest"]
    pair = schemas["UnitAnswer"]["properties"]["more_likely"]["items"]
    assert [part["type"] for part in pair["prefixItems"]] == ["string", "number"]


def _models(kind: Any) -> set[type[BaseModel]]:
    found: set[type[BaseModel]] = {kind}
    for field in kind.model_fields.values():
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in found:
                found |= _models(part)
    return found


def _parts(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    return [annotation, *(part for each in inner for part in _parts(each))]


@pytest.mark.parametrize("name", OPERATIONS)
def test_requests_are_closed(name: str) -> None:
    """What a request may have is known: no field that takes anything, and none that is not declared."""
    for kind in _models(OPERATIONS[name].request):
        assert kind.model_config["extra"] == "forbid", kind
        for field in kind.model_fields.values():
            assert Any not in _parts(field.annotation) and object not in _parts(field.annotation)


def test_each_error_has_a_status_of_its_own_or_its_class() -> None:
    assert status_of(errors.UnknownPoint("no")) == 404, "by its class, UnknownName"
    assert status_of(errors.ServerError("no")) == 500
    assert {status_of(kind("no")) for kind in errors.ERRORS.values()} <= {*STATUSES.values(), 500}


def test_words_of_other_errors_stay_here() -> None:
    status, told = failure(RuntimeError("/home/somebody/secret"))
    assert status == 500 and "secret" not in told.model_dump_json()


def test_a_wrong_request_says_where() -> None:
    with pytest.raises(ValidationError) as caught:
        OPERATIONS["forward"](Door(), {"prompts": "a", "reads": [{"pint": "x"}]})
    status, told = failure(caught.value)
    assert status == INVALID and "reads.0.point" in told.problem and "reads.0.pint" in told.problem


def test_a_limit_says_both_numbers() -> None:
    with pytest.raises(
        errors.BadRequest, match=r"2,049 tokens; the limit is 2,048 \(limits.prompt_tokens\)"
    ):
        RequestLimits().check("prompt_tokens", 2049, "A prompt has 2,049 tokens")


def test_a_door_without_a_model_says_so() -> None:
    with pytest.raises(errors.ServerGone, match="only stored records"):
        OPERATIONS["forward"](Door(), {"prompts": "a"})
