"""The connectome against every connection of a model, in float64; what is interrupted goes on; over ranks it is the same."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter import experiments
from garcon_jupyter.experiments.connectivity.connectome import making, tables
from garcon_jupyter.experiments.connectivity.connectome.files import Connectome
from garcon_jupyter.experiments.connectivity.connectome.pieces import Pieces
from garcon_jupyter.wire import requests as wire
from tests import checkpoints
from tests.experiments.connectivity.conftest import Connect, PlainHeads
from tests.experiments.connectivity.connectome.by_product import FAMILIES, agrees, between_layers
from tests.oracle import Plain


def arrays(found: Connectome) -> dict[str, np.ndarray]:
    return {name: np.asarray(found.array(name)) for name in found.index["arrays"]}


def same(one: Connectome, other: Connectome, exactly: bool = False) -> bool:
    mine, theirs = arrays(one), arrays(other)
    near = np.array_equal if exactly else np.allclose
    return mine.keys() == theirs.keys() and all(
        near(mine[name], theirs[name], equal_nan=True) for name in mine
    )


@pytest.fixture
def found(rmodel: garcon.RemoteModel, tmp_path: Path) -> Connectome:
    return experiments.connectome(rmodel, tmp_path / "whole", k=5)


@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_are_connected_as_the_whole_product_says(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gated and not, with a norm behind, with a LayerNorm; in blocks that cut the layers unevenly. Without the norm's gain it is another."""
    monkeypatch.setattr(making, "LAYERS_AT_ONCE", 3)
    plain = Plain(checkpoints.make(family, tmp_path / "model"))
    rmodel = garcon.connect(open_here(plain.model))
    found = experiments.connectome(rmodel, tmp_path / "found", k=6)
    neurons = FAMILIES[family](plain)
    for part, reads in neurons.reads.items():
        every = between_layers(reads, neurons.writes)
        assert agrees(found, f"{part}_from_neurons", every)
        assert agrees(found, f"neurons_to_{part}", every.T)
        bare = between_layers(neurons.bare[part], neurons.writes)
        assert not agrees(found, f"{part}_from_neurons", bare)
    assert ("linear_from_neurons" in found.tables) == ("linear" in neurons.reads)
    said = " ".join(found.index["limits"])
    assert ("what neurons write passes a norm" in said) == (family == "gemma2")
    rmodel.close()


def test_a_square_projection_is_not_read_along_the_other_side(tmp_path: Path) -> None:
    plain = Plain(checkpoints.make("llama", tmp_path / "model", intermediate_size=48))
    found = experiments.connectome(
        garcon.connect(open_here(plain.model)), tmp_path / "found", k=4, tokens=False
    )
    neurons = FAMILIES["llama"](plain)
    assert agrees(found, "gate_from_neurons", between_layers(neurons.reads["gate"], neurons.writes))
    along = between_layers(neurons.reads["gate"].mT, neurons.writes)
    assert not agrees(found, "gate_from_neurons", along)


def heads_read(by_hand: PlainHeads, part: str, dealt: bool = False) -> list[list[Tensor]]:
    """[layer][head], all that it reads, [D, D]; `dealt`: keys and values in turn, 0 1 0 1 0 1, instead of in a row, 0 0 0 1 1 1."""

    def one(layer: int, head: int) -> Tensor:
        g, other = by_hand.gain(layer), 3 * (head % 2) if dealt else head
        q, k, v = (by_hand.reads(layer, name, head if name == "q" else other) * g for name in "qkv")
        return {"q": k.T @ q, "k": q.T @ k, "v": by_hand.writes(layer, head) @ v}[part]

    return [[one(layer, head) for head in range(6)] for layer in range(4)]


def test_heads_are_connected_by_all_that_they_read_and_write(
    found: Connectome, by_hand: PlainHeads
) -> None:
    """With neurons, and with each other; those of a layer are read by its neurons. Keys of another group are another answer."""
    ov = [[by_hand.ov(layer, head) for head in range(6)] for layer in range(4)]
    down = [by_hand.neurons(layer, "down") for layer in range(4)]
    for part, name in (("gate", "gate"), ("linear", "up")):
        rows = [by_hand.neurons(layer, name) for layer in range(4)]
        every = torch.full((4, 80, 4, 6), torch.nan, dtype=torch.float64)
        for j in range(4):
            for i in range(j + 1):
                every[j, :, i] = torch.stack([(rows[j] @ one).norm(dim=1) for one in ov[i]], 1)
        assert agrees(found, f"{part}_from_heads", every.flatten(2).flatten(0, 1))
        assert agrees(found, f"heads_to_{part}", every.flatten(2).flatten(0, 1).T)
    for part in "qkv":
        right, wrong = (
            _read_by_heads(heads_read(by_hand, part, d), ov, down) for d in (False, True)
        )
        assert agrees(found, f"{part}_from_neurons", right[0])
        assert agrees(found, f"neurons_to_{part}", right[0].T)
        assert agrees(found, f"{part}_from_heads", right[1])
        assert agrees(found, f"heads_to_{part}", right[1].T)
        assert not agrees(found, f"{part}_from_neurons", wrong[0])


def _read_by_heads(
    reads: list[list[Tensor]], ov: list[list[Tensor]], down: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """[head, neuron] and [head, head], counted over all layers."""
    neurons = torch.full((4, 6, 4, 80), torch.nan, dtype=torch.float64)
    heads = torch.full((4, 6, 4, 6), torch.nan, dtype=torch.float64)
    for j in range(4):
        for i in range(j):
            for head, read in enumerate(reads[j]):
                neurons[j, head, i] = (down[i] @ read.T).norm(dim=1)
                heads[j, head, i] = torch.stack([(read @ one).norm() for one in ov[i]])
    return neurons.flatten(2).flatten(0, 1), heads.flatten(2).flatten(0, 1)


def test_tokens_are_connected_by_embedding_and_unembedding(
    found: Connectome, by_hand: PlainHeads
) -> None:
    model = by_hand.plain.model
    embedding, unembedding = (
        part.weight.detach().double() for part in (model.model.embed_tokens, model.lm_head)
    )
    rows, down = (
        torch.cat([by_hand.neurons(layer, name) for layer in range(4)]) for name in ("gate", "down")
    )
    assert agrees(found, "gate_from_tokens", rows @ embedding.T)
    logits = down * model.model.norm.weight.detach().double() @ unembedding.T
    assert agrees(found, "neurons_to_logits", logits - logits.mean(1, keepdim=True))
    assert not agrees(found, "neurons_to_logits", logits)


# -- on disk -------------------------------------------------------------------------------------


def test_what_is_interrupted_goes_on(
    rmodel: garcon.RemoteModel, found: Connectome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found before is not computed again, and a file that was being written is not taken for a whole one."""
    monkeypatch.setattr(making, "LAYERS_AT_ONCE", 2)
    path, put, asked = tmp_path / "again", Pieces.put, []

    def stopped(pieces: Pieces, block: Any, parts: Sequence[Any]) -> None:
        if len(asked) == 2:
            (pieces.path / f"{block.name}.writing").write_bytes(b"half of it")
            raise KeyboardInterrupt
        asked.append(block.name)
        put(pieces, block, parts)

    with monkeypatch.context() as patch:
        patch.setattr(Pieces, "put", stopped)
        with pytest.raises(KeyboardInterrupt):
            experiments.connectome(rmodel, path, k=5)
    with pytest.raises(garcon.BadData, match="no connectome that is finished"):
        garcon.open_connectome(path)
    with pytest.raises(garcon.BadData, match="beginning of another connectome: of other k"):
        experiments.connectome(rmodel, path, k=4)

    run = rmodel._run

    def counted(request: Any, *more: Any, **options: Any) -> Any:
        if isinstance(request, wire.ReadWeights):
            asked.append("")
        return run(request, *more, **options)

    monkeypatch.setattr(rmodel, "_run", counted)
    again = experiments.connectome(rmodel, path, k=5)
    assert len(asked) == 3 + 4, "three pairs of two layers, and the tokens of four layers"
    assert same(again, found)
    assert not (path / "pieces").exists() and not (path / making.BEGUN).exists()


def test_other_weights_do_not_go_on_with_what_was_begun(tmp_path: Path) -> None:
    one, other = (checkpoints.make("llama", tmp_path / "model", seed=seed) for seed in (0, 0))
    assert one == other
    rmodel = garcon.connect(open_here(one))
    making._begin(tmp_path / "begun", making._settings(rmodel, _extent(rmodel), True))
    rmodel.close()
    checkpoints.make("llama", one, seed=1)
    rmodel = garcon.connect(open_here(one))
    with pytest.raises(garcon.BadData, match="another connectome: of other weights"):
        making._begin(tmp_path / "begun", making._settings(rmodel, _extent(rmodel), True))
    rmodel.close()


def _extent(rmodel: garcon.RemoteModel) -> tables.Extent:
    return tables.extent_of(rmodel, 3, None, True)


def test_its_size_is_known_before(rmodel: garcon.RemoteModel, found: Connectome) -> None:
    extent = tables.extent_of(rmodel, 5, None, True)
    files = [found.path / f"{name}.npy" for name in found.index["arrays"]]
    assert sum(file.stat().st_size for file in files) == extent.bytes + 128 * len(files)
    pairs = 6 * (2 * 80 * 80 + 2 * 80 * 6 + 3 * 6 * 80 + 3 * 6 * 6)  # of layers
    assert extent.bytes_in_full == 4 * (pairs + 3 * 320 * 263)


def test_a_disk_without_room_is_refused_before_anything_is_asked(
    rmodel: garcon.RemoteModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: used._replace(free=10_000))
    monkeypatch.setattr(making, "at_the_weights", None)
    with pytest.raises(garcon.BadData, match=r"takes \S+ KiB until .* has 9\.8 KiB"):
        experiments.connectome(rmodel, tmp_path / "none")


def test_what_cannot_be_is_refused(
    rmodel: garcon.RemoteModel, of_family: Connect, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(garcon.BadData, match="holds something else"):
        experiments.connectome(rmodel, tmp_path)
    with pytest.raises(garcon.BadRequest, match=r"k is 0\. Ask for at least 1"):
        experiments.connectome(rmodel, tmp_path / "x", k=0)
    with pytest.raises(garcon.BadRequest, match=r"Layers 2, 4 are not all there.*0 to 3"):
        experiments.connectome(rmodel, tmp_path / "x", layers=[4, 2])
    with pytest.raises(garcon.PointUnavailable, match="heads or neurons"):
        experiments.connectome(of_family("mamba"), tmp_path / "x")
    with pytest.raises(garcon.PointUnavailable, match="several streams"):
        experiments.connectome(of_family("gemma3n_text"), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_experts_are_left_out_with_the_reason(of_family: Connect, tmp_path: Path) -> None:
    found = experiments.connectome(of_family("mixtral"), tmp_path / "found", k=2)
    assert found.tables == ["q_from_heads", "k_from_heads", "v_from_heads"] + [
        f"heads_to_{part}" for part in "qkv"
    ]
    assert any(
        "neurons of layers 0, 1" in said and "left out" in said for said in found.index["limits"]
    )


# -- over ranks ----------------------------------------------------------------------------------


@pytest.mark.processes
def test_over_ranks_it_is_the_same(
    rmodel_tp2: garcon.RemoteModel, found: Connectome, tmp_path: Path
) -> None:
    assert same(experiments.connectome(rmodel_tp2, tmp_path / "two", k=5), found)
