"""The whole road, from the client to the ranks and back: any sharding gives the numbers of one process.

What each family computes at each layout is compared with plain transformers in
``tests/backend/test_parity.py``; here the servers, sockets and stages between are real as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from tests import checkpoints
from tests.conftest import quiet

VALUES, GRADIENTS = 1e-5, 1e-4
"""max|a−b| / max|b| in float32."""

TEXTS = ["the cat sat on", "a dog"]
LAYOUTS: list[dict[str, int]] = [{"tp": 2}, {"pp": 2}, {"tp": 2, "pp": 2}, {"dp": 2}, {"dp": 3}]
FAMILIES = ("llama", "gpt2")


def save(save_ctx, tensor):
    save_ctx.value = tensor


def edit(save_ctx, tensor):
    """Straddles every shard: each unit of the last axis is changed by another number."""
    scale = torch.linspace(0.5, 1.5, tensor.shape[-1])
    tensor[:, -1] = tensor[:, -1] * scale + 0.1


def square(logits):
    return (logits[0, -1] ** 2).sum()


def last_squares(logits):
    assert logits.shape[1] == 1
    return logits[:, 0].pow(2).sum(-1)


def far(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))


@pytest.fixture(scope="module", params=FAMILIES)
def whole(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[garcon.RemoteModel]:
    """One process."""
    path = checkpoints.make(request.param, tmp_path_factory.mktemp(request.param))
    name = f"{request.param}-whole"
    model = garcon.connect(garcon.launch(path, name=name, progress=quiet).name)
    yield model
    model.shutdown()


@pytest.fixture(params=LAYOUTS, ids=lambda layout: "-".join(f"{k}{v}" for k, v in layout.items()))
def cut(request: pytest.FixtureRequest, whole: garcon.RemoteModel) -> Iterator[garcon.RemoteModel]:
    """The same checkpoint over several ranks."""
    path = Path(whole.facts["path"])
    server = garcon.launch(path, name="cut", progress=quiet, **request.param)
    model = garcon.connect(server.name)
    yield model
    model.shutdown()


def probed(model: garcon.RemoteModel) -> list[str]:
    """Every point of the first and of the last layer, and those outside of the layers."""
    last = model.catalog.n_layers - 1
    keep = (f"layers.{last}.", "layers.0.")
    return [n for n in model.probe_points if not n.startswith("layers.") or n.startswith(keep)]


def everything(model: garcon.RemoteModel) -> dict[str, Tensor]:
    """Values, edits, gradients, parameters and generations, by what they are."""
    garcon.ship(__import__(__name__, fromlist=["_"]))
    tokens = model.encode(TEXTS)
    found = {"logits": model.forward(tokens, probes=[])}
    found["last"] = model.forward(tokens, probes=[], logits="last")
    names = probed(model)
    parameters = ["layers.0.attn.q_proj", "layers.1.mlp.down_proj", "embed.weight"]
    rows, gradients = model.backward(
        tokens, last_squares, probes=[], parameters=parameters, logits="last", each_row=True
    )
    found["each row's loss"] = rows
    found |= {f"last gradient of {p}": g for p, g in gradients.items()}
    found |= attributed(model)
    for name in names:
        point = model.probe_points[name]
        seen = [point.probe(save), point.probe(edit)]
        found[f"{name} edited"] = model.forward(tokens, probes=seen, logits="last")
        if point.addresses[0].spec is not None and name.endswith("indices"):
            continue
        probes = [point.probe(edit), point.probe(save, grad=True, name="gradient")]
        loss, gradients = model.backward(tokens, square, probes=probes, parameters=parameters)
        found[f"{name} loss"] = loss
        found |= {f"{name} gradient of {p}": g for p, g in gradients.items()}
    recordings = model.recordings()
    for name in names:
        found[name] = recordings[name].value
        if (name, "gradient") in recordings:
            found[f"{name} gradient"] = recordings[name, "gradient"].value
    for name in model.parameters:
        if "layers." not in name or ".1." in name or ".0." in name:
            found[f"parameter {name}"] = model.get_parameter(name)
    found["generated"] = model.generate(tokens, max_new_tokens=6, probes=[]).ids.float()
    edits = [model.probe_points["layers.0.attn.v"].probe(edit)]
    found["generated with edits"] = model.generate(
        tokens, max_new_tokens=6, probes=edits
    ).ids.float()
    return found


def attributed(model: garcon.RemoteModel) -> dict[str, Tensor]:
    """Attribution of two pairs by gradients, with what is patched beside it."""
    clean = [[0, 40, 41, 42, 99], [0, 12, 13, 14, 15]]
    corrupted = [[0, 40, 77, 42, 99], [0, 12, 80, 14, 15]]
    answers = (17, 23)
    nodes = {
        method: model.experiments.attribute(
            clean, corrupted, answers=answers, method=method, steps=2, check=3
        )
        for method in ("corrupted", "mean", "integrated", "layer")
    }
    edges = model.experiments.attribute_edges(clean, corrupted, answers, method="mean", check=3)
    found = {f"nodes, {method}": one.values for method, one in nodes.items()}
    found["nodes patched"] = nodes["mean"].more["exact"].nan_to_num()
    return found | {
        "edges": edges.values.nan_to_num(),
        "edges patched": edges.more["exact"].nan_to_num(),
    }


@pytest.fixture(scope="module")
def expected(whole: garcon.RemoteModel) -> dict[str, Tensor]:
    return everything(whole)


def test_every_number_is_that_of_one_process(expected: dict[str, Tensor], cut) -> None:
    found = everything(cut)
    assert set(found) == set(expected)
    off = {
        name: distance
        for name, value in found.items()
        if not (distance := far(value, expected[name]))
        <= (GRADIENTS if "gradient" in name or "loss" in name else VALUES)
    }
    assert not off
    # The comparison can tell: an edit that missed half of the units would be far off.
    name = "layers.0.mlp.post_activation edited"
    assert far(expected[name], expected["last"]) > 100 * VALUES


def keep(save_ctx, tensor):
    save_ctx.value = tensor
    save_ctx.sum = tensor.sum()
    best = tensor.flatten().topk(3)
    save_ctx.top = {"values": best.values, "indices": best.indices}


def count(parts):
    return len(parts)


@pytest.mark.parametrize("layout", [{"tp": 2}, {"tp": 2, "dp": 2}], ids=["tp2", "tp2-dp2"])
def test_sharded_probes_are_merged(whole: garcon.RemoteModel, layout: dict[str, int]) -> None:
    garcon.ship(__import__(__name__, fromlist=["_"]))
    path = Path(whole.facts["path"])
    cut = garcon.connect(garcon.launch(path, name="cut", progress=quiet, **layout).name)
    try:
        point = cut.probe_points["layers.0.mlp.post_activation"]
        parts = layout["tp"] * layout.get("dp", 1)
        rules = {"cat": "cat", "sum": "sum", "topk": "topk", "own": count}
        probes = [
            point.probe(keep, sharded=True, merge=rule, name=name, read_only=True)
            for name, rule in rules.items()
        ]
        probes.append(point.probe(save, name="whole"))
        cut.forward(cut.encode(["the cat sat on", "a dog", "so"]), probes=probes)
        recordings = cut.recordings()
        value = recordings[point.name, "whole"].value
        assert len(value) == 3  # an odd batch: one replica reads a row that only fills up
        assert far(recordings[point.name, "cat"].value, value) == 0
        assert far(recordings[point.name, "sum"].sum, value.sum()) < 1e-4
        best = value.flatten().topk(3).values
        assert far(recordings[point.name, "topk"].top["values"], best) == 0
        assert recordings[point.name, "own"].value == parts
        # A handle's cut means the whole value, not each shard.
        handle = cut.recordings(fetch=False)[point.name, "cat"].value
        assert far(handle[2, :, -3:].fetch(), value[2, :, -3:]) == 0
    finally:
        cut.shutdown()


@pytest.mark.parametrize("layout", [{"tp": 3}, {"pp": 2}], ids=["tp3", "pp2"])
def test_smollm2(layout: dict[str, int], smollm2: garcon.RemoteModel) -> None:
    garcon.ship(__import__(__name__, fromlist=["_"]))
    cut = garcon.connect(garcon.launch("smollm2", name="cut", progress=quiet, **layout).name)
    try:
        names = ["layers.4.mlp.post_activation", "layers.20.attn.pattern", "layers.29.attn.k"]
        results = []
        for model in (smollm2, cut):
            tokens = model.encode("The capital of France is")
            probes = [model.probe_points[n].probe(save) for n in names]
            probes += [model.probe_points[n].probe(save, grad=True, name="g") for n in names]
            model.backward(tokens, square, probes=probes)
            recordings = model.recordings()
            found = {n: recordings[n].value for n in names}
            found |= {f"{n} gradient": recordings[n, "g"].value for n in names}
            found["logits"] = model.forward(tokens, probes=[])
            found["q_proj"] = model.get_parameter("layers.7.attn.q_proj")
            results.append(found)
            text = model.decode(model.generate(tokens, max_new_tokens=8, probes=[]))[0]
            assert "Paris" in text
            results.append(text)
        one, text, many, other = results
        assert text == other
        assert one[names[0]].shape == (1, 5, 1536)
        for name, value in one.items():
            tolerance = GRADIENTS if "gradient" in name else VALUES
            assert far(many[name], value) <= tolerance, name
    finally:
        cut.shutdown()
