"""What recorders keep: by formula, as measured, and refused where there is no room."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import garcon_jupyter as garcon
from garcon_backend.save_contexts.contexts import Contexts
from garcon_jupyter import recorders
from garcon_jupyter.amounts import sized
from garcon_jupyter.recorders import Recorder, alone
from garcon_jupyter.servers import control
from tests.conftest import quiet
from tests.recorders.splits import make

MLP = "layers.1.mlp.post_activation"
EVERY: list[Recorder[Any]] = [
    recorders.TopK(4),
    recorders.TopK(4, before=2, after=1),
    recorders.BottomK(3),
    recorders.Reservoir(3, before=1),
    recorders.EqualWidthReservoir(-1, 1, 5, 2),
    recorders.EqualCountReservoir(5, 2, after=2),
    recorders.Moments(),
    recorders.Histogram(),
    recorders.Quantiles(0.05),
    recorders.Firing(),
    recorders.Covariance(),
    recorders.Covariance(double=False),
    recorders.Coactivation(),
    recorders.Sketch(16),
]


@pytest.mark.parametrize("recorder", EVERY, ids=repr)
def test_the_formula_is_what_is_held(recorder: Recorder[Any]) -> None:
    data = make(2, 40, 7, "smooth")
    state = recorder.update(None, data.seen())
    assert recorder.memory(7) == state.nbytes
    assert recorder.needs("p", lambda _: 7, ()) == state.nbytes
    assert recorder.needs("p", lambda _: 7, [recorder.name]) == 0  # it is there already
    together = recorders.Together([recorder, recorders.TokenStatistics()])
    assert together.memory(7) == state.nbytes


def test_the_formula_of_two_points() -> None:
    recorder = recorders.CrossCovariance("a", "b")
    context = SimpleNamespace()
    for point, units in (("a", 5), ("b", 3)):
        context.here = alone(torch.zeros(2, 4, dtype=torch.long), point=point)
        recorder(context, torch.randn(2, 4, units))
    units = {"a": 5, "b": 3}.__getitem__
    assert recorder.needs("a", units, ()) == 0
    assert recorder.needs("b", units, ()) == context.cross_covariance.nbytes


def test_pairs_of_the_neurons_of_smollm2(smollm2: garcon.RemoteModel) -> None:
    """19 MB for a layer of 1,536, 7 MB for one beside the stream of 576, and 6 MB of sketches."""
    one, other = MLP, "layers.2.resid_pre"
    probe = {point: smollm2.probe_points[point].probe for point in (one, other)}
    across = recorders.CrossCovariance(one, other)
    probes = [
        *(put(across) for put in probe.values()),
        probe[one](recorders.Covariance(double=False)),
        probe[one](recorders.Sketch()),
    ]
    smollm2.run([list(range(1, 65))] * 2, probes, batch_tokens=64, show=False)
    found = smollm2.recordings()
    held = (
        found[one].covariance.nbytes,
        found[other].cross_covariance.nbytes,
        found[one].sketch.nbytes,
    )
    assert held == (
        recorders.Covariance().memory(1536),
        across.memory(1536, 576),
        recorders.Sketch().memory(1536),
    )
    assert held == (18_923_520, 7_111_680, 6_311_936)


def test_what_does_not_fit_at_the_size_of_smollm2(smollm2: garcon.RemoteModel) -> None:
    """One of all pairs of tokens takes 18 GiB; a thousand of them fit nowhere."""
    point = smollm2.probe_points["logits"]
    probes = [point.probe(recorders.Covariance(), name=str(n)) for n in range(1000)]
    each = 8 * 49152**2 + 32 * 49152
    message = rf"need {sized(1000 * each)} on a rank \(Covariance.* {sized(each)}, and 999 more\)"
    assert sized(each) == "18.0 GiB"
    with pytest.raises(garcon.DoesNotFit, match=message):
        smollm2.run([[1, 2, 3]], probes, show=False)
    with pytest.raises(garcon.DoesNotFit, match="may be kept. Record fewer points"):
        smollm2.forward([[1, 2, 3]], probes)


def test_what_does_not_fit_is_refused_before_anything_runs(either: garcon.RemoteModel) -> None:
    point = either.probe_points[MLP]
    vast = recorders.EqualWidthReservoir(-1, 1, 10_000_000, 1000)
    firing = point.probe(recorders.Firing(), name="kept")
    either.run([[5, 6, 7]], [firing], show=False)
    need = 16 * 1000 * 10_000_000 * 80 // either.facts["degrees"]["tp"]
    with pytest.raises(garcon.DoesNotFit, match=f"need {sized(need)} on a rank"):
        either.run([[5, 6, 7]], [point.probe(vast)], show=False)
    (run,) = [run for run in either.runs() if run.status.failure]
    assert run.status.batches == 0 and run.status.tokens == 0
    assert either.recordings()[MLP, "kept"].firing.tokens_seen == 3
    either.run([[5, 6, 7]], [firing], show=False)  # the server goes on


@pytest.mark.processes
def test_each_stage_counts_what_it_records(llama_path: Path) -> None:
    """Points without a layer, too: the embedding is on the first stage, the logits on the last."""

    def reservoir(units: int) -> Recorder[Any]:
        recorder = recorders.EqualWidthReservoir(-1, 1, (20 << 20) // (16 * 10 * units), 10)
        assert 19 << 20 < recorder.memory(units) < 21 << 20
        return recorder

    server = garcon.launch(llama_path, "stages", pp=2, keep="64MiB", progress=quiet)
    model = garcon.connect("stages")
    first, last = (
        model.probe_points[name].probe(reservoir(units), name="vast")
        for name, units in (("embed.out", 48), ("logits", 263))
    )
    also_last = model.probe_points["final_norm.out"].probe(reservoir(48), name="vast")
    with pytest.raises(garcon.DoesNotFit, match=r"need 4\d\.\d MiB on a rank .*and 1 more"):
        model.run([[5, 6, 7]], [last, also_last], show=False)
    model.run([[5, 6, 7]], [first, last], show=False)
    model.close()
    control.stop(server, force=True)


def test_states_count_towards_what_a_rank_keeps() -> None:
    contexts = Contexts()
    contexts.quota.set_limit(1 << 20)
    state = recorders.TopK(4).update(None, make(2, 40, 7, "smooth").seen())
    vars(contexts.open("session", MLP, None))["topk"] = state
    assert contexts.room() == (1 << 20) - state.nbytes
    assert list(contexts.names("session", MLP, None)) == ["topk"]
