"""Attribution graphs against a held model written out by hand in float64, and the sums that they must be."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter import BadRequest, PointUnavailable, UnknownName, experiments
from garcon_jupyter.experiments.attribution_graphs.frozen_passes import LATENT, LOGIT, FrozenModel
from garcon_jupyter.experiments.attribution_graphs.run import run_of
from garcon_jupyter.experiments.attribution_graphs.transcoders import transcoders_of
from tests import checkpoints
from tests.conftest import quiet
from tests.dictionaries.making import cross_layer, saelens
from tests.experiments.attribution_graphs.by_hand import (
    HeldModel,
    held_model,
    of_circuit_tracer,
    of_saelens,
)

IDS = [[0, 40, 41, 42, 99, 7]]
LENGTH, LAYERS, LATENTS = 6, 4, 12
ALL = 10_000


@dataclass
class Traced:
    """A small model in float64 with a transcoder in each layer, or one across them, as we serve it and by hand."""

    rmodel: garcon.RemoteModel
    names: list[str]
    hand: HeldModel

    def model(self, bypass: tuple[int, ...] = ()) -> FrozenModel:
        tokens = self.rmodel._tokens(IDS)
        chosen = transcoders_of(self.rmodel, self.names)
        run = run_of(self.rmodel, tokens, chosen, bypass, 0.95, 4)
        return FrozenModel(self.rmodel, tokens, chosen, run, bypass)


FAMILIES = ("llama", "gemma2", "gemma3_text", "olmo2")
ACROSS = "llama across layers"


def traced_model(family: str, folder: Path) -> Traced:
    """A model of a family, with transcoders into what its MLPs put out."""
    path = checkpoints.make(family.split()[0], folder / "model")
    rmodel = garcon.connect(open_here(path, dtype="float64"))
    width, layers = rmodel.catalog.sizes["D"], rmodel.catalog.n_layers
    assert layers == LAYERS
    if family == ACROSS:
        files = cross_layer(folder / "clt", width, LATENTS, LAYERS, jumprelu=False)
        at = ["layers.*.mlp.in", "layers.*.mlp.out"]
        rmodel.dictionaries.load(files, "clt", at, show=False)
        coders, names = of_circuit_tracer(files, LAYERS), ["clt"]
    else:
        each, names = [], [f"tc{layer}" for layer in range(LAYERS)]
        for layer, name in enumerate(names):
            hook = f"blocks.{layer}.mlp.hook_in"
            each.append(saelens(folder / name, width, LATENTS, hook, "transcoder", seed=layer))
            ends = (f"layers.{layer}.mlp.in", f"layers.{layer}.mlp.out")
            rmodel.dictionaries.load(each[-1], at=ends, show=False)
        coders = of_saelens(each)
    return Traced(rmodel, names, held_model(path, coders, torch.tensor(IDS)))


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    return traced_model("llama", tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module", params=[*FAMILIES, ACROSS], ids=lambda name: name.replace(" ", "-"))
def any_traced(
    request: pytest.FixtureRequest, traced: Traced, tmp_path_factory: pytest.TempPathFactory
) -> Traced:
    if request.param == "llama":
        return traced
    return traced_model(request.param, tmp_path_factory.mktemp("graphs"))


def sources_by_hand(traced: Traced, model: FrozenModel) -> Tensor:
    """Which of the sources by hand ours are, in their order."""
    places = model.run.places
    at = model.run.which * LENGTH * LATENTS + places[:, 0] * LATENTS + places[:, 1]
    rest = torch.arange(
        LAYERS * LENGTH * LATENTS, LAYERS * LENGTH * LATENTS + (LAYERS + 1) * LENGTH
    )
    return torch.cat([at, rest])


def test_edges_and_biases_add_up_to_every_target(any_traced: Traced) -> None:
    traced = any_traced
    model, hand = traced.model(), traced.hand
    active = [latents.nonzero() for latents in hand.latents]
    assert len(model.run.which) == sum(map(len, active))
    at = sources_by_hand(traced, model)
    targets = [(LOGIT, token) for token in model.run.logits]
    targets += [(LATENT, number) for number in range(0, len(model.run.which), 17)]
    edges, values = model.edges(targets)
    for row, (kind, number) in enumerate(targets):
        place = (None, 0, number)
        if kind == LATENT:
            layer = int(model.run.which[number])
            place = (layer, *model.run.places[number].tolist())
        value, nothing, right = hand.target(*place)
        assert float(values[row]) == pytest.approx(value, rel=1e-4)
        assert torch.allclose(edges[row], right[at], rtol=1e-5, atol=1e-6)
        assert float(right.sum()) == pytest.approx(float(right[at].sum()), rel=1e-9)
        # What is left without any source is what biases add: neither nothing, nor half of it.
        assert float(edges[row].sum()) + nothing == pytest.approx(value, rel=1e-4)
        if kind == LATENT:
            assert float(edges[row].sum()) != pytest.approx(value, rel=1e-4)


def test_all_ways_from_tokens_errors_and_biases_add_up_to_the_logit(any_traced: Traced) -> None:
    """Active latents of relu are their pre-activations, so the whole held model is linear, and complete."""
    traced = any_traced
    model = traced.model()
    run, count = model.run, len(model.run.which)
    targets = [(LOGIT, run.logits[0]), *((LATENT, number) for number in range(count))]
    edges, values = model.edges(targets)
    bias = values - edges.sum(1)
    total, constant = edges[0].clone(), bias[0]
    for latent in reversed(range(count)):  # later layers come first
        share = total[latent] / values[1 + latent]
        total = total + share * edges[1 + latent]
        constant = constant + share * bias[1 + latent]
    roots = total[count:].sum()
    whole = float(traced.hand.logits[run.logits[0]] - traced.hand.logits.mean())
    assert float(roots + constant) == pytest.approx(whole, rel=1e-4)
    assert float(roots) != pytest.approx(whole, rel=1e-3)  # biases forgotten
    tokens = total[-LENGTH:].sum()
    assert float(tokens + constant) != pytest.approx(whole, rel=1e-3)  # errors forgotten


def test_a_bypassed_position_has_an_error_alone(traced: Traced) -> None:
    whole, past = traced.model(), traced.model((0,))
    assert 0 not in past.run.places[:, 0].tolist() and 0 in whole.run.places[:, 0].tolist()
    targets = [(LOGIT, whole.run.logits[0])]
    before, value = whole.edges(targets)
    after, same = past.edges(targets)
    assert float(value) == pytest.approx(float(same))
    at_first = (whole.run.places[:, 0] == 0).nonzero().flatten()
    first_errors = torch.arange(LAYERS) * LENGTH
    count, left = len(whole.run.which), len(past.run.which)
    moved = after[0, left + first_errors].sum() - before[0, count + first_errors].sum()
    biases = moved - before[0, at_first].sum()  # of decoders, which are now in the error
    wide = before.sum() - after.sum()
    assert float(biases) == pytest.approx(float(-wide), abs=1e-6)


def test_the_graph_of_a_prompt(traced: Traced, tmp_path: Path) -> None:
    found = experiments.attribution_graph(
        traced.rmodel, IDS, traced.names, targets=ALL, node_share=1.0, edge_share=1.0, check=8
    )
    model, hand = traced.model(), traced.hand
    at = sources_by_hand(traced, model)
    first = next(name for name in found.axes["target"] if str(name).startswith("logit"))
    _, _, right = hand.target(None, 0, model.run.logits[0])
    ours = found.at(target=first)
    for source, edge in zip(found.axes["source"], ours.tolist(), strict=True):
        node = found.facts["nodes"][source]
        places = {
            "token": lambda n: len(at) - LENGTH + n["position"],
            "error": lambda n: len(at) - (LAYERS + 1 - n["layer"]) * LENGTH + n["position"],
        }
        if node["kind"] in places and edge == edge:
            place = int(at[places[node["kind"]](node)])
            assert edge == pytest.approx(float(right[place]), rel=1e-5, abs=1e-6)
    assert found.facts["check"]["cells"] == 8
    exact = found.more["exact effect"]
    # In the last layer nothing comes between, but for the final norm: both tell the same up to its slope.
    last = [
        row
        for row, name in enumerate(found.axes["source"])
        if found.facts["nodes"][name].get("dictionary") == "tc3" and exact[row] == exact[row]
    ]
    assert all(float(exact[row] * found.more["total effect"][row]) > 0 for row in last)
    again = experiments.load(found.save(tmp_path / "graph.npz"))
    assert again.facts["nodes"] == found.facts["nodes"]
    assert len(again.to_frame()) == int(found.values.isfinite().sum())
    picture = again.show()
    picture.selected_row, picture.selected_column = LAYERS + 1, 2
    assert "to " in picture.detail["text"] and str(LENGTH) in picture.summary
    assert "tc0" in picture.still() or "share of influence" in picture.still()
    assert not traced.rmodel.recordings() and not traced.rmodel.splices


def test_few_targets_are_the_ones_with_most_influence(traced: Traced) -> None:
    few = experiments.attribution_graph(traced.rmodel, IDS, traced.names, targets=5, bypass=[0])
    assert few.facts["targets"] == 5 and few.facts["bypass"] == [0]
    latents = [n for n in few.facts["nodes"].values() if n["kind"] == "latent"]
    assert len(latents) <= 5 and all(n["position"] != 0 for n in latents)
    assert few.values.isfinite().any()


def test_the_file_of_viewers(traced: Traced, tmp_path: Path) -> None:
    found = experiments.attribution_graph(traced.rmodel, IDS, traced.names[:2], targets=20)
    path = experiments.save_graph(found, tmp_path / "a-graph.json", scan="tiny")
    read = json.loads(path.read_text())
    assert set(read) == {"metadata", "qParams", "nodes", "links"}
    assert read["metadata"]["slug"] == "a-graph" and read["metadata"]["scan"] == "tiny"
    assert len(read["metadata"]["prompt_tokens"]) == LENGTH
    ids = [node["node_id"] for node in read["nodes"]]
    assert len(set(ids)) == len(ids) == len(found.facts["nodes"])
    assert {f"E_{token}_{at}" for at, token in enumerate(IDS[0])} <= set(ids)
    assert len(read["links"]) == int(found.values.isfinite().sum())
    assert {link[end] for link in read["links"] for end in ("source", "target")} <= set(ids)
    logits = [node for node in read["nodes"] if node["feature_type"] == "logit"]
    assert sum(node["is_target_logit"] for node in logits) == 1
    assert logits[0]["layer"] == str(LAYERS + 1) and logits[0]["token_prob"] > 0
    for node in read["nodes"]:
        if node["feature_type"] == "cross layer transcoder":
            layer, latent, position = map(int, node["node_id"].split("_"))
            pair = (layer + latent) * (layer + latent + 1) // 2 + latent
            assert (node["feature"], node["ctx_idx"]) == (pair, position)
    # An error of layer 0 at 1 is not latent 1 of layer 0, as it was in circuit-tracer 0.5.0.
    assert all(
        node["node_id"].split("_")[1] == "-1" for node in read["nodes"] if node["feature"] < 0
    )
    other = experiments.composition(traced.rmodel, "V")
    with pytest.raises(BadRequest, match="composition"):
        experiments.save_graph(other, tmp_path / "no.json")


def test_what_has_no_graph(traced: Traced, tmp_path: Path) -> None:
    tell, rmodel, names = experiments.attribution_graph, traced.rmodel, traced.names
    with pytest.raises(UnknownName, match="tc9"):
        tell(rmodel, IDS, ["tc0", "tc9"])
    with pytest.raises(BadRequest, match="No dictionary"):
        tell(rmodel, IDS, [])
    with pytest.raises(BadRequest, match="both stand for"):
        tell(rmodel, IDS, [names[0], names[0]])
    with pytest.raises(BadRequest, match="node_share=2"):
        tell(rmodel, IDS, names, node_share=2)
    with pytest.raises(BadRequest, match="targets=0"):
        tell(rmodel, IDS, names, targets=0)
    with pytest.raises(BadRequest, match="bypass"):
        tell(rmodel, IDS, names, bypass=[99])
    width = rmodel.catalog.sizes["D"]
    rmodel.dictionaries.load(saelens(tmp_path / "sae", width, 16, "blocks.1.hook_resid_post"))
    try:
        with pytest.raises(BadRequest, match="no transcoder of an MLP"):
            tell(rmodel, IDS, ["sae"])
    finally:
        rmodel.dictionaries.unload("sae")


def test_what_cannot_be_held_is_refused(tmp_path: Path) -> None:
    rmodel = garcon.connect(open_here(checkpoints.make("gemma4", tmp_path / "gemma4")))
    width = rmodel.catalog.sizes["D"]
    files = saelens(tmp_path / "tc", width, 8, "blocks.1.mlp.hook_in", "transcoder")
    rmodel.dictionaries.load(files, at=("layers.1.mlp.in", "layers.1.mlp.out"))
    with pytest.raises(PointUnavailable, match="per_layer|v_norm"):
        experiments.attribution_graph(rmodel, IDS, ["tc"])


def test_ablation_tells_what_the_graph_does(any_traced: Traced) -> None:
    """In the last layer nothing but the final norm comes between a latent and the logit."""
    rmodel = any_traced.rmodel
    found = experiments.attribution_graph(
        rmodel, IDS, any_traced.names, targets=ALL, node_share=1.0, edge_share=1.0, check=12,
        progress=False,
    )  # fmt: skip
    assert found.facts["check"]["cells"] == 12
    assert sorted(
        {node["layer"] for node in found.facts["nodes"].values() if node["layer"] is not None}
    ) == [*range(LAYERS)]
    exact, total = found.more["exact effect"], found.more["total effect"]
    checked = [row for row in range(len(exact)) if exact[row] == exact[row]]
    assert len(checked) == 12
    # By hand: the strongest of them put out in the model itself, and all its paths with nothing held.
    row = max(checked, key=lambda row: abs(float(total[row])))
    node = found.facts["nodes"][found.axes["source"][row]]
    sae = rmodel.dictionaries[node["dictionary"]]
    point = sae.point("latents", layer=node["layer"])
    place = (0, node["position"], node["latent"])

    def out(save_ctx, tensor):
        tensor[place] = 0

    cap = rmodel.facts["model"]["logit_cap"]
    token = next(n["token"] for n in found.facts["nodes"].values() if n["kind"] == "logit")

    def measured(probes: list) -> float:
        last = rmodel.forward(IDS, probes=probes)[0, -1]
        last = cap * torch.atanh(last / cap) if cap else last
        return float(last[token] - last.mean())

    assert measured([]) - measured([point.probe(out)]) == pytest.approx(float(exact[row]), rel=1e-4)


def test_ids_of_errors_are_no_latents(traced: Traced, tmp_path: Path) -> None:
    """circuit-tracer wrote the error of layer 1 as `0_1_POSITION` until 0.5.0: latent 1 of layer 0 has that."""
    found = experiments.attribution_graph(
        traced.rmodel,
        IDS,
        traced.names,
        targets=ALL,
        node_share=1.0,
        edge_share=1.0,
        progress=False,
    )
    read = json.loads(experiments.save_graph(found, tmp_path / "all.json").read_text())
    kinds = {node["node_id"]: node["feature_type"] for node in read["nodes"]}
    assert len(kinds) == len(read["nodes"])
    layers, positions = range(LAYERS), range(LENGTH)
    old = {f"0_{layer}_{position}" for layer in layers for position in positions}
    assert old & kinds.keys()  # these would have been taken twice
    assert {kinds[one] for one in old & kinds.keys()} == {"cross layer transcoder"}
    assert {f"{i}_-1_{p}" for i in layers[:-1] for p in positions} <= kinds.keys()
    assert len({node["jsNodeId"] for node in read["nodes"] if node["feature"] == -1}) == len(
        [node for node in read["nodes"] if node["feature"] == -1]
    )


def test_over_ranks(either: garcon.RemoteModel, llama_path: Path, tmp_path: Path) -> None:
    """Two ranks, each with a part of heads and latents, have the edges that are written out by hand."""
    width, files, names = either.catalog.sizes["D"], [], []
    for layer in range(LAYERS):
        hook, folder = f"blocks.{layer}.mlp.hook_in", tmp_path / f"cut{layer}"
        files.append(saelens(folder, width, LATENTS, hook, "transcoder", seed=layer))
        names.append(folder.name)
        ends = (f"layers.{layer}.mlp.in", f"layers.{layer}.mlp.out")
        either.dictionaries.load(files[-1], at=ends)
    both = Traced(either, names, held_model(llama_path, of_saelens(files), torch.tensor(IDS)))
    try:
        model = both.model()
        latent = len(model.run.which) - 1
        edges, _ = model.edges([(LOGIT, model.run.logits[0]), (LATENT, latent)])
    finally:
        for name in names:
            either.dictionaries.unload(name)
    at = sources_by_hand(both, model)
    last = (int(model.run.which[latent]), *model.run.places[latent].tolist())
    for row, place in enumerate(((None, 0, model.run.logits[0]), last)):
        assert torch.allclose(edges[row], both.hand.target(*place)[2][at], atol=1e-3)


@pytest.mark.processes
def test_over_stages(tmp_path: Path) -> None:
    """Latents of the first stage write into the second: what they add goes there with the stream, and the gradient comes back so."""
    path = checkpoints.make("gemma2", tmp_path / "model")
    server = garcon.launch(path, name="graph", progress=quiet, pp=2, dtype="float64")
    rmodel = garcon.connect(server.name)
    width = rmodel.catalog.sizes["D"]
    files = cross_layer(tmp_path / "clt", width, LATENTS, LAYERS, jumprelu=False)
    rmodel.dictionaries.load(files, "clt", ["layers.*.mlp.in", "layers.*.mlp.out"], show=False)
    hand = held_model(path, of_circuit_tracer(files, LAYERS), torch.tensor(IDS))
    both = Traced(rmodel, ["clt"], hand)
    model = both.model()
    latent = len(model.run.which) - 1
    edges, _ = model.edges([(LOGIT, model.run.logits[0]), (LATENT, latent)])
    rmodel.shutdown()
    at = sources_by_hand(both, model)
    last = (int(model.run.which[latent]), *model.run.places[latent].tolist())
    for row, place in enumerate(((None, 0, model.run.logits[0]), last)):
        right = hand.target(*place)[2][at]
        assert right.abs().max() > 0.01 and torch.allclose(edges[row], right, atol=1e-5)
