"""Direct paths: what plain hooks make of them, with everything between held by hand."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest, UnknownPoint, experiments
from tests.experiments.activation_patching.by_loop import Loop, Site, close, hooked
from tests.oracle import Plain

CLEAN, CORRUPTED = [0, 40, 41, 42, 99], [0, 40, 77, 42, 99]
ANSWERS = (17, 23)
LAYERS, HEADS, WIDTH = 4, 6, 16


@pytest.fixture
def loop(plain: Plain) -> Loop:
    return Loop(plain, ANSWERS)


def adds(layer: int) -> list[Site]:
    """What a layer adds to the stream, in order."""
    block = f"model.layers.{layer}"
    return [(f"{block}.self_attn", "output"), (f"{block}.mlp", "output")]


def sent(
    loop: Loop,
    sender: tuple[Site, tuple[Any, ...]],
    held: list[Site],
    receiver: tuple[Site, tuple[Any, ...]] | None,
    hold: bool = True,
) -> float:
    """The share that a path brings back, by three forwards for it."""
    site, place = sender
    values = {one: loop.value(CORRUPTED, one) for one in held if hold}
    given = loop.value(CLEAN, site)
    received: list[Tensor] = []

    def send(value: Tensor) -> Tensor:
        changed = value.clone()
        changed[place] = given[place]
        return changed

    with ExitStack() as stack:
        stack.enter_context(hooked(loop.plain, site, send))
        for one, value in values.items():
            stack.enter_context(hooked(loop.plain, one, lambda _, value=value: value))
        if receiver is not None:
            stack.enter_context(
                hooked(loop.plain, receiver[0], lambda value: received.append(value.clone()))
            )
        direct = loop.metric(CORRUPTED)
    if receiver is None:
        return loop.scaled(direct, CLEAN, CORRUPTED)
    metric = loop.patched(CORRUPTED, {receiver[0]: (receiver[1], received[0][receiver[1]])})
    return loop.scaled(metric, CLEAN, CORRUPTED)


def head(number: int) -> tuple[Any, ...]:
    return (..., slice(number * WIDTH, (number + 1) * WIDTH))


def writes(layer: int, number: int) -> tuple[Site, tuple[Any, ...]]:
    return (f"model.layers.{layer}.self_attn.o_proj", "input"), head(number)


def between(layer: int, last: int) -> list[Site]:
    """All that adds after the attention of a layer, and before another layer."""
    return [adds(layer)[1], *(site for other in range(layer + 1, last) for site in adds(other))]


def paths(rmodel: garcon.RemoteModel, receivers: Any, senders: str = "layers.*.attn.z") -> Any:
    return experiments.path_patch(
        rmodel, [CLEAN], [CORRUPTED], senders, receivers, ("layer", "head"), ANSWERS
    )


@pytest.mark.parametrize(
    ("point", "projection", "chosen"),
    [("q", "q_proj", 4), ("k", "k_proj", 1), ("v", "v_proj", 0)],
)
def test_heads_to_what_a_head_reads(
    either: garcon.RemoteModel, loop: Loop, point: str, projection: str, chosen: int
) -> None:
    """Queries by head, keys and values by the shared one that reads."""
    found = paths(either, {f"layers.3.attn.{point}": [chosen]})
    assert torch.isnan(found.values[3]).all()  # what comes after the receiver sends nothing to it
    receiver = (f"model.layers.3.self_attn.{projection}", "output"), head(chosen)
    for layer, number in ((0, 1), (0, 5), (1, 3), (2, 0)):
        expected = sent(loop, writes(layer, number), between(layer, 3), receiver)
        assert close(found.at(layer=layer, head=number), expected)
    wrong = (receiver[0], head(1 - chosen if point != "q" else 2))
    assert not close(
        found.at(layer=1, head=3), sent(loop, writes(1, 3), between(1, 3), wrong), 1e-5
    )


def test_heads_to_a_stream_an_mlp_and_the_logits(rmodel: garcon.RemoteModel, loop: Loop) -> None:
    stream, mlp = paths(rmodel, "layers.3.resid_pre"), paths(rmodel, ["layers.2.mlp.in"])
    logits = paths(rmodel, "logits")
    for layer, number in ((0, 2), (1, 4)):
        sender = writes(layer, number)
        to_stream = sent(loop, sender, between(layer, 3), (("model.layers.3", "input"), (...,)))
        assert close(stream.at(layer=layer, head=number), to_stream)
        held = [*between(layer, 2), adds(2)[0]]
        to_mlp = sent(loop, sender, held, (("model.layers.2.mlp", "input"), (...,)))
        assert close(mlp.at(layer=layer, head=number), to_mlp)
        to_logits = sent(loop, sender, between(layer, LAYERS), None)
        assert close(logits.at(layer=layer, head=number), to_logits)
        free = sent(loop, sender, between(layer, LAYERS), None, hold=False)
        assert not close(logits.at(layer=layer, head=number), free, 1e-3)  # all ways together
    own = writes(2, 1)
    to_own_mlp = sent(loop, own, [], (("model.layers.2.mlp", "input"), (...,)))
    assert close(mlp.at(layer=2, head=1), to_own_mlp)


def test_an_mlp_sends_by_position(rmodel: garcon.RemoteModel, loop: Loop) -> None:
    found = experiments.path_patch(
        rmodel, [CLEAN], [CORRUPTED], "layers.1.mlp.out", "logits", ("layer", "position"), ANSWERS
    )
    held = [site for layer in (2, 3) for site in adds(layer)]
    for position in (2, 4):
        sender = ("model.layers.1.mlp", "output"), (slice(None), position)
        assert close(found.values[0, position], sent(loop, sender, held, None))
    assert (found.values[0, :2] == 0).all()


def test_paths_to_the_logits_of_all_that_adds_are_all(rmodel: garcon.RemoteModel) -> None:
    """The stream sends directly what it has: patched at the last layer's end it brings all back."""
    found = experiments.path_patch(
        rmodel, [CLEAN], [CORRUPTED], "layers.3.resid_post", "logits", ("layer",), ANSWERS
    )
    assert float(found.values) == pytest.approx(1.0, abs=1e-5)


def test_small_requests_make_no_difference(rmodel: garcon.RemoteModel) -> None:
    whole = paths(rmodel, "layers.3.resid_pre").values[:3]
    cut = experiments.path_patch(
        rmodel, [CLEAN], [CORRUPTED], "layers.0-2.attn.z", "layers.3.resid_pre",
        ("layer", "head"), ANSWERS, tokens=1, progress=False,
    )  # fmt: skip
    assert close(whole, cut.values, 1e-5)
    assert len(rmodel.recordings()) == 0


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "layers in one cell": ({"by": "head"}, BadRequest, "send to one another"),
    "a receiver before": ({"receivers": "layers.0.attn.q"}, BadRequest, "comes after a sender"),
    "no such head": (
        {"receivers": {"layers.3.attn.q": [6]}},
        BadRequest,
        r"no heads \[6\]: it has 6",
    ),
    "a head of a group": ({"receivers": {"layers.3.attn.k": [2]}}, BadRequest, "it has 2"),
    "heads of a stream": ({"receivers": {"layers.3.resid_pre": [0]}}, BadRequest, "no head"),
    "no such receiver": ({"receivers": "layers.9.attn.q"}, UnknownPoint, "0 to 3"),
    "the logits and more": (
        {"receivers": ["logits", "layers.3.attn.q"]},
        BadRequest,
        "all that is",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_mistakes_are_told(rmodel: garcon.RemoteModel, wrong: str) -> None:
    options, kind, message = WRONG[wrong]
    asked = {"receivers": "layers.3.attn.q", "by": ("layer", "head"), **options}
    with pytest.raises(kind, match=message):
        experiments.path_patch(
            rmodel, [CLEAN], [CORRUPTED], "layers.*.attn.z", answers=ANSWERS, **asked
        )
