"""Probes travel once, and what they captured is as it was shipped, in every request anew."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from garcon_backend.execution.stateless import is_stateless
from garcon_backend.kernel.probe_cache import ProbeCache
from garcon_jupyter import RemoteModel
from garcon_jupyter.client.probe_cache import Installing
from garcon_jupyter.errors import ProbesUnknown
from garcon_jupyter.wire.requests import Code, Forward, ProbeSet, ProbeSpec

TOKENS = [[5, 6, 7, 8]]
POINT = "layers.1.resid_post"


def specs(word: str) -> tuple[ProbeSpec, ...]:
    return (ProbeSpec("embed.out", Code(word.encode(), word, word)),)


def test_probes_travel_whole_once_and_by_name_from_then_on() -> None:
    client, server = Installing(), ProbeCache()
    mine = specs("mine")
    first, second = client.named(mine), client.named(mine)
    assert first.payload and second == ProbeSet(first.digest)
    for probe_set in (first, second):
        request = Forward(probe_set=probe_set)
        server.fill(request)
        assert request.probes == mine and request.probe_set is None


def test_a_server_that_does_not_know_them_asks_for_them() -> None:
    client, mine = Installing(), specs("mine")
    client.named(mine)
    with pytest.raises(ProbesUnknown):
        ProbeCache().fill(Forward(probe_set=client.named(mine)))
    request = Forward(probe_set=client.named(mine, again=True))
    ProbeCache().fill(request)
    assert request.probes == mine


def test_nobody_leaves_other_code_under_a_name() -> None:
    client = Installing()
    mine, theirs = client.named(specs("mine")), client.named(specs("theirs"))
    with pytest.raises(ProbesUnknown):
        ProbeCache().fill(Forward(probe_set=ProbeSet(mine.digest, theirs.payload)))


def test_what_was_not_used_for_long_is_forgotten_and_sent_again(
    rmodel: RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def see(save_ctx: Any, tensor: Any) -> None:
        save_ctx.mean = float(tensor.mean())

    probe = rmodel.probe_points[POINT].probe(see)
    named = rmodel._installing.named((probe.spec,))  # now the client believes that it was sent
    assert named.payload and not rmodel._installing.named((probe.spec,)).payload
    rmodel.forward(TOKENS, probes=[probe])
    assert math.isfinite(rmodel.recordings()[POINT].mean)


def test_a_captured_list_is_as_it_was_shipped_in_every_request(rmodel: RemoteModel) -> None:
    seen: list[int] = []

    def count(save_ctx: Any, tensor: Any) -> None:
        seen.append(1)
        save_ctx.count = len(seen)

    probe = rmodel.probe_points[POINT].probe(count)
    for _ in range(3):
        rmodel.forward(TOKENS, probes=[probe])
        assert rmodel.recordings()[POINT].count == 1


FACTOR, WORDS = 3, ("a", 1)
BOX = [0]


def plain(save_ctx: Any, tensor: Any) -> Any:
    return torch.relu(tensor) * FACTOR + math.pi * len(WORDS)


def appends(save_ctx: Any, tensor: Any) -> None:
    BOX.append(1)


def writes(save_ctx: Any, tensor: Any) -> None:
    global FACTOR
    FACTOR += 1


def remembers(save_ctx: Any, tensor: Any, box: Any = []) -> None:  # noqa: B006
    box.append(1)


def looks_around(save_ctx: Any, tensor: Any) -> None:
    globals()["FACTOR"] = 5


def counts_itself(save_ctx: Any, tensor: Any) -> None:
    counts_itself.calls = getattr(counts_itself, "calls", 0) + 1  # type: ignore[attr-defined]


def _closing(value: Any) -> Any:
    def inner(save_ctx: Any, tensor: Any) -> Any:
        return tensor + value

    def rebinding(save_ctx: Any, tensor: Any) -> None:
        nonlocal value
        value += 1

    return inner, rebinding


def shipped(function: Any) -> Any:
    """The function as it arrives: with the globals that it names, and no others."""
    import pickle

    import cloudpickle

    function.__module__ = "__main__"
    return pickle.loads(cloudpickle.dumps(function))


@pytest.mark.parametrize("function", [plain, _closing(2.5)[0], lambda save_ctx, tensor: None])
def test_what_captured_only_fixed_things_is_stateless(function: Any) -> None:
    assert is_stateless(shipped(function))


@pytest.mark.parametrize(
    "function",
    [
        appends,
        writes,
        remembers,
        looks_around,
        counts_itself,
        _closing([2])[0],
        _closing(torch.ones(2))[0],
        _closing(1)[1],
    ],
    ids=lambda function: function.__qualname__,
)
def test_what_might_remember_something_is_not(function: Any) -> None:
    assert not is_stateless(shipped(function))
