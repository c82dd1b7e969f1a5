"""Messages are held against their types, and what is wrong is named."""

from __future__ import annotations

import typing
from typing import Any

import pytest
import torch

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.wire import contents, protocol
from garcon_jupyter.wire import requests as wire
from garcon_jupyter.wire.checking import check, check_content, encodable

CODE = wire.Code(b"", "", "f")


def test_every_message_has_a_type_that_can_be_read() -> None:
    for kind in (protocol.REQUEST, *protocol.CONTROL_MESSAGES):
        assert isinstance(typing.get_type_hints(contents.of(kind)), dict)


@pytest.mark.parametrize(
    ("request_", "wrong"),
    [
        (wire.Snapshot(number="x"), "snapshot.number is of type str, not int"),  # type: ignore[arg-type]
        (wire.Snapshot(number=True), "snapshot.number is of type bool, not int"),
        (wire.Forward(batch=None), "forward.batch is of type NoneType, not Batch"),  # type: ignore[arg-type]
        (wire.Forward(probes=(5,)), r"forward.probes\[0\] is of type int, not ProbeSpec"),  # type: ignore[arg-type]
        (wire.Forward(probes=(wire.ProbeSpec("p", "f"),)), r"probes\[0\].code is of type str"),  # type: ignore[arg-type]
        (wire.Fetch(wanted=((1, 2),)), r"fetch.wanted\[0\] has 2 items, not 3"),  # type: ignore[arg-type]
        (wire.Patch(sources=((0,), ("x",))), r"patch.sources\[1\]\[0\] is of type str, not int"),  # type: ignore[arg-type]
        (wire.Jacobian(dims=(0, "x")), r"jacobian.dims\[1\] is of type str, not int"),  # type: ignore[arg-type]
        (
            wire.TrainDictionary(settings=5),
            "traindictionary.settings is of type int, not TrainingSettings",
        ),  # type: ignore[arg-type]
        (wire.ReadWeights(function="f"), "readweights.function is of type str, not Code"),  # type: ignore[arg-type]
        (wire.Generate(options={5: 1}), "generate.options has a key that is of type int"),  # type: ignore[dict-item]
    ],
)
def test_what_is_wrong_of_a_request_is_named(request_: wire.Request, wrong: str) -> None:
    with pytest.raises(BadRequest, match=wrong):
        check(request_, type(request_), type(request_).__name__.lower())


def test_right_requests_pass() -> None:
    probe = wire.ProbeSpec(
        "layers.0.mlp.out", CODE, merge="concat", source=wire.RecordingRef(1, "p")
    )
    for request in (
        wire.Forward(batch=wire.Batch(torch.ones(1, 1)), probes=(probe,), logits=CODE, session="s"),
        wire.Fetch(wanted=((wire.RecordingRef(1, "p"), "value", (("item", 0),)),), released=(1, 2)),
        wire.Clear(points=None, name=None),
        wire.GetParameter(name="p", index=slice(1)),
        wire.ReadWeights(function=CODE),
    ):
        check(request, type(request), "it")


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ([], "its content is of type list, not dict"),
        ({}, "request is of type NoneType, not str"),
        ({"request": 5}, "request is of type int"),
        ({"request": "x" * 5000}, "request has 5000 characters"),
        ({"request": "\ud800"}, "request is no text"),
        ({"request": "x", "heard": -1}, "heard is -1"),
        ({"request": "x", "heard": 2**40}, "heard is"),
    ],
)
def test_what_is_wrong_of_a_content_is_named(content: Any, wrong: str) -> None:
    with pytest.raises(BadRequest, match=wrong):
        check_content(content, contents.of(protocol.CANCEL))


def test_what_a_type_does_not_name_is_not_looked_at() -> None:
    check_content({"request": "x", "more": object()}, contents.of(protocol.CANCEL))


def test_what_utf8_cannot_say_is_replaced() -> None:
    assert encodable({"a\ud800": ["é\udcff", 5, None]}) == {"a?": ["é?", 5, None]}
