"""No step got twice as slow: ratios measured side by side, with generous bounds.

``make bench`` measures with care; here only a change of kind shall be caught, also on a busy machine. So the
sides take turns, each is judged by its fastest rounds, and what is measured is compared with what it must be.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from garcon_jupyter import RemoteModel
from tests.oracle import Plain

POINT = "layers.0.resid_pre"


@pytest.fixture
def rmodel(rmodel_served: RemoteModel) -> RemoteModel:
    """On a server: what is measured is the way there too."""
    return rmodel_served


def best(rounds: int, *sides: Callable[[], Any]) -> list[float]:
    """Seconds of each side's fastest round; they take turns."""
    found = [float("inf")] * len(sides)
    for _ in range(rounds):
        for number, side in enumerate(sides):
            start = time.perf_counter()
            side()
            found[number] = min(found[number], time.perf_counter() - start)
    return found


def nothing_to_do(rmodel: RemoteModel) -> None:
    """There and back: what any request costs at this moment."""
    rmodel.clear_recordings(name="nobody's")


def save(save_ctx: Any, tensor: Any) -> None:
    save_ctx.value = tensor


def test_a_request_costs_little_more_than_its_forward_and_the_way(
    rmodel: RemoteModel, plain: Plain
) -> None:
    probes = rmodel.probe_points["layers.*.mlp.post_activation"].probes(save, read_only=True)
    ids = torch.randint(3, 263, (1, 8))

    def bare() -> None:
        with torch.no_grad():
            plain.model(ids, use_cache=False)

    alone, nothing, request = best(
        60, bare, lambda: nothing_to_do(rmodel), lambda: rmodel.forward(ids, probes=probes)
    )
    assert request < 2.5 * (alone + nothing) + 2e-3


def test_reading_every_layer_hardly_slows_a_forward(rmodel: RemoteModel) -> None:
    probes = rmodel.probe_points["layers.*.mlp.post_activation"].probes(save, read_only=True)
    ids = torch.randint(3, 263, (32, 64))
    without, reading = best(
        20,
        lambda: rmodel.forward(ids, probes=[], logits="none"),
        lambda: rmodel.forward(ids, probes=probes, logits="none"),
    )
    assert reading < 1.6 * without + 2e-3


def test_probes_that_the_server_has_are_not_sent_again(rmodel: RemoteModel) -> None:
    ballast = torch.randn(1 << 20)

    def heavy(save_ctx: Any, tensor: Any) -> None:
        save_ctx.sum = float(ballast.sum())

    probe = rmodel.probe_points[POINT].probe(heavy)
    start = time.perf_counter()
    rmodel.forward([[5, 6]], probes=[probe], logits="none")
    first = time.perf_counter() - start
    (again,) = best(10, lambda: rmodel.forward([[5, 6]], probes=[probe], logits="none"))
    assert abs(rmodel.recordings()[POINT].sum - float(ballast.sum())) < 0.1
    assert again < 0.7 * first


def test_a_large_recording_is_fetched_in_about_the_time_of_a_copy(rmodel: RemoteModel) -> None:
    floats = 1 << 24  # 64 MiB

    def fill(save_ctx: Any, tensor: Any) -> None:
        save_ctx.value = tensor.new_full((floats,), 7.0)

    rmodel.forward([[5, 6]], probes=[rmodel.probe_points[POINT].probe(fill)], logits="none")
    recording = rmodel.recordings()[POINT]
    handle = recording.handle("value")
    source = torch.full((floats,), 7.0)
    assert torch.equal(handle.fetch(), source)

    def copy() -> None:
        """Into memory that nobody has touched, as what is fetched is: a clone may be given some that is warm."""
        memory = mmap.mmap(-1, 4 * floats)
        torch.frombuffer(memory, dtype=torch.float32).copy_(source)

    copied, fetched = best(8, copy, handle.fetch)
    rmodel.clear_recordings()
    assert fetched < 4 * copied + 5e-3, (fetched, copied)


def test_many_small_recordings_travel_together(rmodel: RemoteModel) -> None:
    def keep(save_ctx: Any, tensor: Any) -> None:
        for number in range(1000):
            setattr(save_ctx, f"v{number}", tensor[0, 0] + number)

    probe = rmodel.probe_points[POINT].probe(keep, read_only=True)
    rmodel.forward([[5, 6]], probes=[probe], logits="none")
    recording = rmodel.recordings()[POINT]
    handles = [recording.handle(f"v{number}") for number in range(1000)]
    values = rmodel.fetch(*handles)
    assert all(torch.equal(value, values[0] + number) for number, value in enumerate(values))
    one, thousand = best(6, lambda: rmodel.fetch(handles[0]), lambda: rmodel.fetch(*handles))
    rmodel.clear_recordings()
    assert thousand < one + 0.25  # one by one they would take seconds


def test_tokens_go_up_in_about_the_time_of_a_copy(rmodel: RemoteModel) -> None:
    ids = torch.randint(3, 263, (1, 1 << 20))

    def up() -> None:
        try:
            rmodel.forward(ids, probes=[], logits="none")
        except ValueError as error:
            assert "too long" in str(error)

    copied, nothing, sent = best(8, ids.clone, lambda: nothing_to_do(rmodel), up)
    assert sent < 6 * (4 * copied + nothing) + 10e-3
