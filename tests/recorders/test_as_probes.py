"""Recorders on real servers: on shards and replicas, and by the magic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import recorders
from garcon_jupyter.recorders import Recorder, alone, seen
from tests.conftest import quiet
from tests.oracle import close

MLP, HEADS, RESIDUAL = "layers.1.mlp.post_activation", "layers.2.attn.z", "layers.3.resid_post"
TEXTS = ["the cat sat on the mat", "a dog", "so it goes, on and on"]
EVERY: list[Recorder[Any]] = [
    recorders.TopK(4, before=2, after=1),
    recorders.BottomK(3),
    recorders.Reservoir(3, seed=5),
    recorders.EqualWidthReservoir(-1, 1, 3, 2),
    recorders.Moments(),
    recorders.Histogram(),
    recorders.Firing(0.1),
    recorders.Covariance(),
    recorders.Coactivation(),
    recorders.TokenStatistics(),
    recorders.Sketch(16),
]


def keep(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.value = tensor


@pytest.fixture(scope="module")
def replicated(llama_path: Path) -> Iterator[garcon.RemoteModel]:
    server = garcon.launch(llama_path, name="recording", tp=2, dp=2, progress=quiet)
    model = garcon.connect(server.name)
    yield model
    model.shutdown(force=True)


SHARDED = [pytest.param(name, marks=pytest.mark.processes) for name in ("tp2", "tp2-dp2")]


@pytest.fixture(params=["one", *SHARDED])
def model(request: pytest.FixtureRequest) -> Iterator[garcon.RemoteModel]:
    """One process; two shards; two shards in two replicas."""
    if request.param == "tp2-dp2":
        yield request.getfixturevalue("replicated")
        return
    name = "rmodel" if request.param == "one" else "rmodel_tp2"
    yield request.getfixturevalue(name)


@pytest.mark.parametrize("point", [MLP, HEADS, RESIDUAL])
def test_every_recorder_is_that_of_the_whole_value(model: garcon.RemoteModel, point: str) -> None:
    garcon.ship(__import__(__name__, fromlist=["_"]))
    place = model.probe_points[point]
    tokens = model.encode(TEXTS)
    model.clear_recordings()
    probes = [place.probe(recorder) for recorder in EVERY]
    for _ in range(2):  # the second pass adds to what the first has left
        model.forward(tokens, [*probes, place.probe(keep, name="whole")], logits="none")
    recordings = model.recordings()
    value = recordings[point, "whole"].value
    observed = seen(value, alone(tokens.ids, tokens.mask))
    for recorder in EVERY:
        found = getattr(recordings[point], recorder.name)
        wanted = recorder.update(recorder.update(None, observed), observed)
        assert found.numbers() == wanted.numbers(), recorder
        for name, tensor in wanted.tensors().items():
            other = found.tensors()[name]
            if tensor.is_floating_point():
                assert close(other.nan_to_num(0, 9, -9), tensor.nan_to_num(0, 9, -9)), name
            else:
                assert torch.equal(other, tensor), (recorder, name)


def test_what_travels_is_the_summary(rmodel: garcon.RemoteModel) -> None:
    probes = rmodel.probe_points["layers.*.mlp.post_activation"].probes(recorders.TopK(2))
    rmodel.forward(rmodel.encode(TEXTS), probes, logits="none")
    handle = rmodel.recordings(fetch=False)[MLP].topk
    assert handle.info.kind == "Examples" and "Examples of" in handle.info.preview
    assert rmodel.recordings()[MLP].topk.nbytes == 80 * 2 * (4 + 8 + 4)


def test_a_point_without_tokens_is_refused_at_once(rmodel: garcon.RemoteModel) -> None:
    with pytest.raises(garcon.BadProbe, match=r"attn.scores is \[b, H"):
        rmodel.probe_points["layers.0.attn.scores"].probe(recorders.TopK(3))


def test_generated_tokens_are_recorded(rmodel: garcon.RemoteModel) -> None:
    probe = rmodel.probe_points[MLP].probe(recorders.Moments())
    rmodel.generate(rmodel.encode(TEXTS), max_new_tokens=4, probes=[probe])
    real = sum(rmodel.encode(TEXTS).lengths)
    assert rmodel.recordings()[MLP].moments.tokens_seen == real + 3 * 3


@pytest.mark.parametrize("made", [recorders.TopK, recorders.Reservoir, recorders.Histogram])
def test_settings_are_whole_numbers(made: Any) -> None:
    for wrong in ("ten", 2.5, None, True):
        with pytest.raises(garcon.BadProbe, match="is no whole number"):
            made(wrong)


def test_every_recorder_can_have_a_name() -> None:
    for kind in (recorders.Moments, recorders.Firing, recorders.TopK, recorders.Covariance):
        assert kind(name="mine").name == "mine" and kind().name == kind.name
