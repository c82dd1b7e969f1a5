"""A connectome that was opened: units, tables, shares, and what is not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import garcon_jupyter as garcon
from garcon_backend.in_process import ModelHere
from garcon_jupyter import experiments
from garcon_jupyter.experiments.connectivity.connectome.files import Connectome, connectome_beside

WRITE = "layers.{}.mlp.post_activation"


@pytest.fixture(scope="module")
def found(llama_here: ModelHere, tmp_path_factory: pytest.TempPathFactory) -> Connectome:
    path = tmp_path_factory.mktemp("found") / "tiny.connectome"
    rmodel = garcon.connect(llama_here)
    experiments.connectome(rmodel, path, k=5)
    rmodel.close()
    return garcon.open_connectome(path)


def test_a_unit_has_what_connections_says_of_it(
    rmodel: garcon.RemoteModel, found: Connectome
) -> None:
    """Of all earlier layers, and of the heads of its own; by whichever of its points it is named."""
    unit = found.unit(WRITE.format(2), 17)
    assert unit.point == WRITE.format(2)
    read, written = "layers.2.mlp.pre_activation", WRITE.format(2)
    for table, single in {
        "gate_from_neurons": experiments.connections(rmodel, WRITE.format("*"), read, 5, 17),
        "linear_from_heads": experiments.connections(
            rmodel, "layers.*.attn.z", "layers.2.mlp.pre_linear", 5, 17
        ),
        "neurons_to_v": experiments.connections(
            rmodel, written, "layers.*.attn.v", 5, 17, per="writer"
        ),
        "neurons_to_logits": experiments.connections(rmodel, written, "logits", 5, 17, "writer"),
    }.items():
        connections = unit.strongest(table)
        assert [one.value for one in connections] == pytest.approx(
            single.values[0].tolist(), rel=1e-4
        )
        assert [one.unit for one in connections] == single.more["partner"][0].tolist()
        assert unit.shares[table] == pytest.approx(single.more["share"].item(), rel=1e-5)
    token = unit.strongest("neurons_to_logits")[0]
    assert token.point == "logits" and token.partner == token.name
    assert token.name == rmodel.token_strings([[token.unit]], alone=True)[0][0]
    frame = unit.to_frame()
    assert len(frame) == sum(map(len, unit.tables.values()))
    assert [*frame.columns] == ["table", "rank", "point", "unit", "name", "value", "share"]
    assert found.unit(read, 17) == unit == found.unit("layers.2.mlp.pre_linear", 17)
    assert repr(unit).startswith(f"<{WRITE.format(2)} 17: gate reads ")


def test_the_table_of_a_point_is_that_of_connections(
    rmodel: garcon.RemoteModel, found: Connectome
) -> None:
    ours = found.table("k_from_neurons", "layers.3.attn.k")
    theirs = experiments.connections(rmodel, WRITE.format("*"), "layers.3.attn.k", 5)
    assert ours.axes == theirs.axes
    assert torch.allclose(ours.values, theirs.values, atol=1e-5)
    for name in ("layer", "partner"):
        assert torch.equal(ours.more[name].long(), theirs.more[name].long())
    assert torch.allclose(ours.more["share"], theirs.more["share"], rtol=1e-5)


def test_the_first_layer_reads_no_neuron_and_the_last_is_read_by_tokens(found: Connectome) -> None:
    first, last = found.unit(WRITE.format(0), 3), found.unit(WRITE.format(3), 3)
    assert "gate_from_neurons" not in first.tables and "gate_from_heads" in first.tables
    assert {table for table in last.tables if "_to_" in table} == {"neurons_to_logits"}


def test_shares_are_means_over_the_units_of_a_layer(found: Connectome) -> None:
    shares = found.shares()
    assert [*shares.axes] == ["table", "layer"] and shares.axes["layer"] == (0, 1, 2, 3)
    ours = [found.unit(WRITE.format(2), unit).shares["gate_from_neurons"] for unit in range(80)]
    assert shares.at(table="gate_from_neurons", layer=2).item() == pytest.approx(np.mean(ours))
    assert shares.at(table="gate_from_neurons", layer=0).isnan()
    assert repr(found).startswith("<connectome of 24 heads and 320 neurons, the 5 strongest of 23")


def test_what_is_not_there_is_named(found: Connectome, tmp_path: Path) -> None:
    with pytest.raises(garcon.UnknownName, match=r"has no unit 80\. It has 0 to 79"):
        found.unit(WRITE.format(1), 80)
    with pytest.raises(garcon.UnknownName, match=r"layers\.4"):
        found.unit(WRITE.format(4), 0)
    with pytest.raises(garcon.UnknownName, match="gate_from_head"):
        found.unit(WRITE.format(1), 0).strongest("gate_from_head")
    with pytest.raises(garcon.UnknownName, match="q_from_heads"):
        found.table("q_from_heads", WRITE.format(1))
    with pytest.raises(garcon.BadData, match="holds no connectome"):
        garcon.open_connectome(tmp_path)
    (tmp_path / "connectome.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(garcon.BadData, match="format 99"):
        garcon.open_connectome(tmp_path)


def test_one_that_lies_beside_is_found_by_its_model(found: Connectome) -> None:
    atlas = found.path.parent / "tiny.atlas"
    beside = connectome_beside(atlas, found.index["model"])
    assert beside is not None and beside.path == found.path
    assert connectome_beside(atlas, "another model") is None
