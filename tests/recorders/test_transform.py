"""Recorders of what a function makes of a point's tensor: the same as of values computed without Garçon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import BadProbe, recorders
from garcon_jupyter.recorders import Recorder, alone, seen
from tests.conftest import quiet
from tests.oracle import Plain, close

RESIDUAL, PATTERN, HEADS = "layers.3.resid_post", "layers.1.attn.pattern", "layers.1.attn.z"
TEXTS = ["the cat sat on the mat", "a dog", "so it goes, on and on"]
DIRECTIONS = torch.randn(48, 3, generator=torch.Generator().manual_seed(1))
EVERY: list[Recorder[Any]] = [
    recorders.TopK(4, before=2, after=1),
    recorders.BottomK(3),
    recorders.Reservoir(3, seed=5),
    recorders.EqualCountReservoir(2, 2),
    recorders.Moments(),
    recorders.Histogram(),
    recorders.Quantiles(),
    recorders.Firing(0.1),
    recorders.Covariance(),
    recorders.Coactivation(),
    recorders.TokenStatistics(),
    recorders.Sketch(16),
]


def project(tensor: Tensor) -> Tensor:
    return tensor @ DIRECTIONS


@pytest.fixture(scope="module")
def cut(llama_path: Path) -> Iterator[garcon.RemoteModel]:
    """Two stages, two replicas."""
    server = garcon.launch(llama_path, name="transforming", pp=2, dp=2, progress=quiet)
    model = garcon.connect(server.name)
    yield model
    model.shutdown(force=True)


SHARDED = [pytest.param(name, marks=pytest.mark.processes) for name in ("tp2", "pp2-dp2")]


@pytest.fixture(params=["one", *SHARDED])
def model(request: pytest.FixtureRequest) -> Iterator[garcon.RemoteModel]:
    name = {"one": "rmodel", "tp2": "rmodel_tp2", "pp2-dp2": "cut"}[request.param]
    yield request.getfixturevalue(name)


def plain_residual(plain: Plain, ids: Tensor, mask: Tensor) -> Tensor:
    """The residual stream after the last layer but none, by a hook of one's own."""
    caught: list[Tensor] = []

    def catch(module: Any, args: Any, output: Any) -> None:
        caught.append(output[0] if isinstance(output, tuple) else output)

    handle = plain.module("model.layers.3").register_forward_hook(catch)
    with torch.no_grad():
        plain.model(ids, attention_mask=mask.long())
    handle.remove()
    return caught[0]


@pytest.mark.processes
def test_every_recorder_of_a_function_is_that_of_its_values(
    model: garcon.RemoteModel, plain: Plain
) -> None:
    tokens = model.encode(TEXTS)
    model.clear_recordings()
    point = model.probe_points[RESIDUAL]
    probes = [point.probe(one.of(project, units=["a", "b", "c"])) for one in EVERY]
    for _ in range(2):
        model.forward(tokens, probes, logits="none")
    found = model.recordings()[RESIDUAL]
    value = plain_residual(plain, tokens.ids, tokens.mask) @ DIRECTIONS
    observed = seen(value, alone(tokens.ids, tokens.mask))
    for one in EVERY:
        wanted = one.update(one.update(None, observed), observed)
        state = getattr(found, one.name)
        assert state.labels == ("a", "b", "c") and state.of == "project"
        assert state.tokens_seen == 2 * int(tokens.mask.sum())
        for name, tensor in wanted.tensors().items():
            mine = state.tensors()[name].double().nan_to_num(0, 9, -9)
            assert close(mine, tensor.double().nan_to_num(0, 9, -9), 1e-4), (one, name)
    # And by no recorder at all; another direction is told from it.
    real = value[tokens.mask]
    assert close(found.moments.mean, real.double().mean(0), 1e-5)
    assert close(found.topk.values[:, 0], real.amax(0), 1e-5)
    assert not close(found.moments.mean, real.double().mean(0).flip(0), 1e-2)


def test_it_is_given_parameters_of_the_model_of_any_stage(
    model: garcon.RemoteModel, plain: Plain
) -> None:
    ids = torch.tensor([7, 11])

    def logits(tensor: Tensor, params: dict[str, Tensor]) -> Tensor:
        return tensor @ params["unembed.weight"][ids].T

    recorder = recorders.Moments().of(logits, units=2, params=["unembed.weight"])
    tokens = model.encode(TEXTS)
    model.clear_recordings()
    model.forward(tokens, [model.probe_points["layers.0.resid_pre"].probe(recorder)], logits="none")
    embedded = plain.module("model.embed_tokens").weight[tokens.ids[tokens.mask]]
    wanted = embedded @ plain.module("lm_head").weight[ids].T
    found = model.recordings()["layers.0.resid_pre"].moments
    assert close(found.mean, wanted.detach().double().mean(0), 1e-5)


def test_a_run_of_several_recorders_of_one_function(rmodel_tp2: garcon.RemoteModel) -> None:
    together = recorders.Together([recorders.TopK(3), recorders.Firing()]).of(project, units=3)
    points = rmodel_tp2.probe_points["layers.*.resid_post"]
    probes = [*points.probes(together, name="d"), *points.probes(recorders.Covariance())]
    rmodel_tp2.run(TEXTS, probes, packed=False, batch_tokens=8, show=False)
    found = rmodel_tp2.recordings()
    for point in (RESIDUAL, "layers.0.resid_post"):
        pairs, states = found[point].covariance, found[point, "d"]
        assert states.topk.values.shape == (3, 3) and states.firing.fired.shape == (3,)
        assert states.firing.tokens_seen == pairs.tokens_seen
    mean = found[RESIDUAL, "d"].firing
    assert mean.tokens_seen == sum(rmodel_tp2.encode(TEXTS).lengths)


def test_points_without_units_can_be_recorded_by_what_is_made_of_them(
    rmodel: garcon.RemoteModel,
) -> None:
    def strongest(pattern: Tensor) -> Tensor:  # [b, H, q, k] to [b, q, H]
        return pattern.amax(-1).transpose(1, 2)

    def two_of_each_head(z: Tensor) -> Tensor:  # [b, p, H, d] to [b, p, H, 2]
        return z[..., :2]

    tokens = rmodel.encode(TEXTS)
    look = recorders.TopK(1)
    probes = [
        rmodel.probe_points[PATTERN].probe(look.of(strongest, units=6)),
        rmodel.probe_points[HEADS].probe(look.of(two_of_each_head, units=2)),
        rmodel.probe_points[HEADS].probe(recorders.TopK(1, name="own")),
    ]
    rmodel.forward(tokens, probes, logits="none")
    found = rmodel.recordings()
    assert torch.equal(
        found[PATTERN].topk.values, torch.ones(6, 1)
    )  # the first token attends to itself
    own = found[HEADS].own.values.view(6, -1)
    assert torch.equal(found[HEADS].topk.values.view(6, 2), own[:, :2])


def test_an_atlas_of_directions(rmodel: garcon.RemoteModel, tmp_path: Path, plain: Plain) -> None:
    directions = recorders.Transform(project, 3, labels=("north", "east", "up"))
    options: dict[str, Any] = {"of": directions, "packed": False, "show": False, "mergeable": True}
    atlas = rmodel.atlas(RESIDUAL, TEXTS, tmp_path / "whole", k=2, **options)
    assert atlas.units == {RESIDUAL: 3} and atlas[RESIDUAL, 1].label == "east"
    assert "east of project at" in repr(atlas[RESIDUAL, 1])
    tokens = rmodel.encode(TEXTS)
    value = (plain_residual(plain, tokens.ids, tokens.mask) @ DIRECTIONS)[tokens.mask]
    assert close(torch.tensor(atlas.array("top_values")[:, 0]), value.amax(0), 1e-5)
    assert close(torch.tensor(atlas.array("moments")[:, 0]), value.double().mean(0), 1e-5)
    assert "logits_up" not in atlas.index["arrays"]
    parts = [
        rmodel.atlas(RESIDUAL, TEXTS[:2], tmp_path / "a", k=2, **options),
        rmodel.atlas(RESIDUAL, TEXTS[2:], tmp_path / "b", k=2, first_document=2, **options),
    ]
    both = garcon.merge_atlases(parts, tmp_path / "both")
    assert both[RESIDUAL, 2].label == "up"
    assert (both.array("fired") == atlas.array("fired")).all()
    with pytest.raises(garcon.BadRequest, match="made by project"):
        both[RESIDUAL, 0].show(rmodel)
    other = rmodel.atlas(
        RESIDUAL, TEXTS[2:], tmp_path / "c", k=2, first_document=2, **{**options, "of": None}
    )
    with pytest.raises(garcon.BadData, match="differ in their"):
        garcon.merge_atlases([parts[0], other], tmp_path / "no")


# -- without a server -----------------------------------------------------------------------------


def context(tokens: Tensor, **saved: Any) -> Any:
    return SimpleNamespace(here=alone(tokens), params={}, **saved)


@pytest.mark.parametrize("recorder", EVERY, ids=lambda recorder: recorder.name)
def test_states_are_merged_and_kept_on_disk(recorder: Recorder[Any], tmp_path: Path) -> None:
    tokens, value = torch.randint(0, 9, (2, 5)), torch.randn(2, 5, 48)
    one = recorder.of(project, units=["a", "b", "c"])
    states = []
    for row in range(2):
        save_ctx = context(tokens[row : row + 1])
        one(save_ctx, value[row : row + 1])
        states.append(getattr(save_ctx, recorder.name))
    merged = one.merge(states)
    recorders.save(tmp_path / "state", merged)
    again = recorders.load(tmp_path / "state")
    assert again.numbers() == merged.numbers() and again.labels == ("a", "b", "c")
    assert merged.tokens_seen == 10


def test_what_is_kept_is_known_beforehand() -> None:
    one = recorders.TopK(5).of(project, units=3)
    save_ctx = context(torch.zeros(1, 4, dtype=torch.long))
    one(save_ctx, torch.randn(1, 4, 48))
    assert one.needs("any", lambda point: 10**9, ()) == save_ctx.topk.nbytes
    assert one.needs("any", lambda point: 10**9, ("topk",)) == 0


def test_two_that_keep_under_one_name_are_told_apart() -> None:
    save_ctx = context(torch.zeros(1, 4, dtype=torch.long))
    value = torch.randn(1, 4, 48)
    recorders.Moments().of(project, units=3)(save_ctx, value)
    with pytest.raises(BadProbe, match=r"'moments' holds what was recorded of project"):
        recorders.Moments()(save_ctx, value)
    with pytest.raises(BadProbe, match="name of its own"):
        recorders.Moments().of(torch.relu, units=48)(save_ctx, value)


def test_a_function_that_makes_something_else_is_named(rmodel: garcon.RemoteModel) -> None:
    wrong: list[tuple[Any, int, str]] = [
        (project, 4, r"project made \[1, 3, 3\] of \[1, 3, 48\] .* not \[1, 3, 4\]"),
        (lambda tensor: tensor.mean(1), 48, r"made \[1, 48\] of .* not \[1, 3, 48\]"),
        (lambda tensor: tensor.sum(-1), 3, r"made \[1, 3\]"),
        (lambda tensor: 5, 3, "returned a int"),
    ]
    for fn, units, said in wrong:
        probe = rmodel.probe_points[RESIDUAL].probe(recorders.Moments().of(fn, units=units))
        with pytest.raises(BadProbe, match=said):
            rmodel.forward([[5, 6, 7]], [probe], logits="none")


def test_what_is_no_function_or_no_number_of_units_is_refused_at_once() -> None:
    topk = recorders.TopK(3)
    for fn, units in ((DIRECTIONS, 3), (project, 0), (project, None), (project, "abc"), (dict, 3)):
        with pytest.raises(BadProbe):
            topk.of(fn, units=units)  # type: ignore[arg-type]
    with pytest.raises(BadProbe, match="probe of its own"):
        recorders.CrossCovariance("a", "b").of(project, units=3)


def test_unknown_parameters_are_named_at_once(rmodel: garcon.RemoteModel) -> None:
    recorder = recorders.TopK(3).of(lambda tensor, params: tensor, units=48, params="unembed")
    with pytest.raises(garcon.UnknownParameter, match="unembed"):
        rmodel.probe_points[RESIDUAL].probe(recorder)
