"""Edges against plain autograd, one reader at a time, and against the nodes that they must add up to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter import BadRequest, PointUnavailable, experiments
from tests import checkpoints
from tests.experiments.attribution.by_hand import LlamaByHand
from tests.oracle import Plain, close

CLEAN, CORRUPTED = [[0, 40, 41, 42, 99]], [[0, 40, 77, 42, 99]]
ANSWERS = (17, 23)


@pytest.fixture(scope="module")
def by_hand(plain: Plain) -> LlamaByHand:
    return LlamaByHand(plain.model, ANSWERS)


def writers(by_hand: LlamaByHand, ids: Any) -> Tensor:
    """What is written by the embedding, and by the heads and the MLP of each layer, [writer, p, D]."""
    mlps: list[Tensor] = []
    handles = [
        layer.mlp.register_forward_hook(lambda _, __, out: mlps.append(out[0].detach()))
        for layer in by_hand.layers
    ]
    _, z, _ = by_hand.run(ids)
    for handle in handles:
        handle.remove()
    found = [by_hand.model.get_input_embeddings()(torch.tensor(ids))[0].detach()]
    for layer, mlp, of_layer in zip(by_hand.layers, mlps, z, strict=True):
        heads = by_hand.by_head(of_layer)[0]
        weight = layer.self_attn.o_proj.weight.detach().unflatten(1, (by_hand.heads, -1))
        found += [heads[:, head] @ weight[:, head].T for head in range(by_hand.heads)]
        found.append(mlp)
    return torch.stack(found)


@contextmanager
def beside(norm: Any, projection: Any, rows: slice, added: Tensor) -> Iterator[None]:
    """Some rows of a projection read the stream with `added`, through the norm; nothing else does."""
    entered: list[Tensor] = []

    def read(module: Any, _: Any, out: Tensor) -> Tensor:
        new = out.clone()
        new[..., rows] = torch.nn.functional.linear(
            norm.forward(entered[-1] + added), module.weight
        )[..., rows]
        return new

    handles = [
        norm.register_forward_pre_hook(lambda _, args: entered.append(args[0])),
        projection.register_forward_hook(read),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def read_at(by_hand: LlamaByHand, ids: Any, reader: str) -> Tensor:
    """The gradient at what a reader sees of the stream, [p, D]: of zeros that are added for it alone."""
    ids = torch.tensor(ids)
    added = torch.zeros(ids.shape[1], by_hand.model.config.hidden_size, requires_grad=True)
    kind, _, place = reader.partition(" ")
    if kind in "qkv":
        layer, head = map(int, place.split("."))
        block, d = by_hand.layers[layer], by_hand.model.config.head_dim
        projection = getattr(block.self_attn, f"{kind}_proj")
        where = beside(block.input_layernorm, projection, slice(head * d, head * d + d), added)
    else:
        norm = by_hand.model.model.norm
        if kind == "mlp":
            norm = by_hand.layers[int(place)].post_attention_layernorm
        where = _into(norm, added)
    with where, torch.enable_grad():
        by_hand.metric(by_hand.model(ids).logits).sum().backward()
    assert added.grad is not None
    return added.grad


@contextmanager
def _into(norm: Any, added: Tensor) -> Iterator[None]:
    handle = norm.register_forward_pre_hook(lambda _, args: (args[0] + added,))
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("method", ["corrupted", "clean"])
def test_edges_are_writers_times_gradients_of_readers(
    either: garcon.RemoteModel, by_hand: LlamaByHand, method: str
) -> None:
    found = experiments.attribute_edges(either, CLEAN, CORRUPTED, ANSWERS, method=method)
    changed = writers(by_hand, CLEAN) - writers(by_hand, CORRUPTED)
    low, high = found.facts["ends"]
    ids = CLEAN if method == "clean" else CORRUPTED
    for reader in ("q 1.4", "k 2.0", "k 2.1", "v 3.1", "q 3.0", "mlp 0", "mlp 3", "logits"):
        expected = (changed * read_at(by_hand, ids, reader)).sum((1, 2)) / (high - low)
        edges = found.at(reader=reader)
        seen = ~edges.isnan()
        layer = 4 if reader == "logits" else int(reader.split()[1].split(".")[0])
        before = 1 + 7 * layer + (6 if reader.startswith("mlp") else 0)
        assert int(seen.sum()) == before  # what is written later is not read
        assert close(edges[seen], expected[:before], 1e-4), reader
    assert len(either.recordings()) == 0


def test_edges_of_a_writer_add_up_to_its_node(rmodel: garcon.RemoteModel) -> None:
    """Keys and values have one reader for each key/value head; with one for each query head they would count double."""
    found = experiments.attribute_edges(rmodel, CLEAN, CORRUPTED, ANSWERS)
    sizes = rmodel.catalog.sizes
    readers = found.axes["reader"]
    assert [sum(r.startswith(f"{x} 2.") for r in readers) for x in "qkv"] == [
        *(sizes["H"], sizes["K"], sizes["K"])
    ]
    nodes = experiments.attribute(rmodel, CLEAN, CORRUPTED, answers=ANSWERS).values
    heads = [number for number, w in enumerate(found.axes["writer"]) if w.startswith("head")]
    sums = found.values.nansum(1)[heads].view_as(nodes)
    assert close(sums, nodes, 1e-4) and close(
        found.more["nodes"][heads].view_as(nodes), nodes, 1e-4
    )
    shared = [number for number, r in enumerate(readers) if r[0] in "kv"]
    double = found.values.nansum(1) + found.values[:, shared].nansum(1) * (
        sizes["H"] / sizes["K"] - 1
    )
    assert not close(double[heads].view_as(nodes), nodes, 1e-2)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "phi", "mixtral", "qwen3", "bloom"])
def test_edges_add_up_in_other_architectures(family: str, tmp_path: Path) -> None:
    """LayerNorms, halves side by side, one norm for both, experts, norms of queries, ALiBi."""
    rmodel = garcon.connect(open_here(checkpoints.make(family, tmp_path)))
    found = experiments.attribute_edges(rmodel, CLEAN, CORRUPTED, ANSWERS)
    assert close(found.values.nansum(1), found.more["nodes"], 1e-4)


def test_what_reads_or_writes_otherwise_is_refused(tmp_path: Path) -> None:
    """Post-norms, multipliers and clipped queries are no edges of this kind."""
    for family, error, words in (
        ("gemma2", BadRequest, "in other ways as well"),
        ("granite", BadRequest, "in other ways as well"),
        ("jamba", BadRequest, "Only 2 of 4 layers have"),
        ("mamba", PointUnavailable, "nothing attends here"),
        ("deepseek_v3", PointUnavailable, r"attn\.k, which this model has not"),
    ):
        rmodel = garcon.connect(open_here(checkpoints.make(family, tmp_path / family)))
        with pytest.raises(error, match=words):
            experiments.attribute_edges(rmodel, CLEAN, CORRUPTED, ANSWERS)
        assert len(rmodel.recordings()) == 0


def test_a_real_model(smollm2: garcon.RemoteModel) -> None:
    clean = "When John and Mary went to the shops, John gave the bag to"
    corrupted = "When John and Mary went to the shops, Mary gave the bag to"
    found = experiments.attribute_edges(smollm2, clean, corrupted, (" Mary", " John"))
    assert (found.values.nansum(1) - found.more["nodes"]).abs().max() < 1e-4
    assert found.strongest(1)[0][0] == {"writer": "head 23.3", "reader": "logits"}


def test_mistakes_are_told(rmodel: garcon.RemoteModel) -> None:
    with pytest.raises(BadRequest, match="no method 'mean'"):
        experiments.attribute_edges(rmodel, CLEAN, CORRUPTED, ANSWERS, method="mean")
    with pytest.raises(BadRequest, match="nothing to restore"):
        experiments.attribute_edges(
            rmodel, CLEAN, CORRUPTED, metric=lambda logits: logits[:, 0, 0] * 0
        )
