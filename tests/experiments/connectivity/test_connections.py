"""The strongest connections: against every product, in float64, of weights that are read off transformers' own modules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import experiments
from garcon_jupyter.experiments.connectivity import ends as module
from garcon_jupyter.experiments.connectivity import strongest as products
from garcon_jupyter.experiments.result import ExperimentResult
from tests.experiments.connectivity.conftest import Connect, PlainHeads

WRITE, READ = "layers.{}.mlp.post_activation", "layers.{}.mlp.pre_activation"


def strongest(every: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of all connections [unit, partner]: values, partners, and the share of their squares."""
    at = every.abs().argsort(1, descending=True)[:, :k]
    values = every.gather(1, at)
    return values, at, values.square().sum(1) / every.square().sum(1)


def agrees(found: ExperimentResult, every: Tensor) -> bool:
    """Values, partners and shares are those of all connections [unit, partner]."""
    values, partners, share = strongest(every, found.values.shape[1])
    return (
        torch.allclose(found.values.double(), values, atol=1e-5)
        and torch.equal(found.more["partner"], partners)
        and torch.allclose(found.more["share"].double(), share, rtol=1e-4)
    )


@pytest.mark.parametrize(("point", "part"), [("pre_activation", "gate"), ("pre_linear", "up")])
def test_neurons_of_a_pair_of_layers(
    either: garcon.RemoteModel, by_hand: PlainHeads, point: str, part: str
) -> None:
    """Both parts of a gated MLP, from either side; without the norm's gain it is another."""
    rmodel = either
    every = by_hand.neurons(2, part) @ by_hand.neurons(1, "down").T  # [reader, writer]
    names = WRITE.format(1), f"layers.2.mlp.{point}"
    found = experiments.connections(rmodel, *names, k=5)
    assert found.axes == {"neuron": tuple(range(80)), "rank": (1, 2, 3, 4, 5)}
    assert agrees(found, every) and (found.more["layer"] == 1).all()
    assert agrees(experiments.connections(rmodel, *names, k=5, per="writer"), every.T)
    bare = by_hand.neurons(2, part) / by_hand.gain(2, "post_attention_layernorm")
    assert not agrees(found, bare @ by_hand.neurons(1, "down").T)


def test_of_several_layers_before_a_unit(rmodel: garcon.RemoteModel, by_hand: PlainHeads) -> None:
    """A pattern selects all layers; those that do not come before are none of its writers."""
    found = experiments.connections(rmodel, WRITE.format("*"), READ.format(2), k=7, unit=17)
    every = (
        by_hand.neurons(2, "gate")[17]
        @ torch.cat([by_hand.neurons(layer, "down") for layer in (0, 1)]).T
    )
    values, partners, share = strongest(every[None], 7)
    assert found.axes["neuron"] == (17,)
    assert torch.allclose(found.values.double(), values, atol=1e-5)
    assert torch.equal(found.more["layer"], partners // 80)
    assert torch.equal(found.more["partner"], partners % 80)
    assert found.more["share"].item() == pytest.approx(share.item(), rel=1e-4)
    assert list(found.to_frame().columns) == ["neuron", "rank", "value", "layer", "partner"]


def test_a_few_products_at_a_time_are_the_same(
    rmodel: garcon.RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> Tensor:
        return experiments.connections(rmodel, "embed.out", READ.format(3), k=4).values

    whole = found()
    monkeypatch.setattr(products, "_AT_ONCE", 3 * 263)
    assert torch.allclose(found(), whole, atol=1e-6)


def test_all_shares_are_one_where_all_are_told(rmodel: garcon.RemoteModel) -> None:
    found = experiments.connections(rmodel, WRITE.format(0), READ.format(1), k=81, unit=[3, 5])
    assert torch.allclose(found.more["share"], torch.ones(2))
    assert found.values[:, -1].isnan().all() and (found.more["partner"][:, -1] == -1).all()


# -- tokens and heads ----------------------------------------------------------------------------


def test_tokens_to_neurons_and_neurons_to_tokens(
    rmodel: garcon.RemoteModel, by_hand: PlainHeads
) -> None:
    model = by_hand.plain.model
    embedding, unembedding = (
        part.weight.detach().double() for part in (model.model.embed_tokens, model.lm_head)
    )
    reads = experiments.connections(rmodel, "embed.out", READ.format(2), k=3)
    assert agrees(reads, by_hand.neurons(2, "gate") @ embedding.T)
    assert "layer" not in reads.more
    word = rmodel.token_strings([[int(reads.more["partner"][0, 0])]])[0][0]
    assert reads.to_frame()["partner name"][0] == word

    gain = model.model.norm.weight.detach().double()
    writes = experiments.connections(rmodel, WRITE.format(2), "logits", k=3, per="writer")
    logits = by_hand.neurons(2, "down") * gain @ unembedding.T
    assert agrees(writes, logits - logits.mean(1, keepdim=True))
    assert not agrees(writes, logits), "softmax does not see the mean"


def heads_to_neurons(by_hand: PlainHeads) -> Tensor:
    """[neuron of layer 2, head of layers 0, 1, 2 by turns], as lengths of what a neuron reads of all that a head can write."""
    rows = by_hand.neurons(2, "gate")
    heads = [by_hand.ov(layer, head) for layer in range(3) for head in range(6)]
    return torch.stack([(rows @ ov).norm(dim=1) for ov in heads], 1)


def test_heads_to_neurons(rmodel: garcon.RemoteModel, by_hand: PlainHeads) -> None:
    """Those of its own layer are read, as the MLP comes after attention."""
    found = experiments.connections(rmodel, "layers.*.attn.z", READ.format(2), k=18)
    values, partners, _ = strongest(heads_to_neurons(by_hand), 18)
    assert torch.allclose(found.values.double(), values, atol=1e-4)
    same = found.more["layer"] * 6 + found.more["partner"] == partners
    assert same.float().mean() > 0.99  # but for ties


@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_heads_to_heads_are_compositions_that_are_not_divided(
    rmodel: garcon.RemoteModel, by_hand: PlainHeads, kind: str
) -> None:
    dense: dict[str, Callable[[int], Tensor]] = {
        "q": lambda head: by_hand.qk(3, head).T,
        "k": lambda head: by_hand.qk(3, head),
        "v": lambda head: by_hand.ov(3, head),
    }
    found = experiments.connections(rmodel, "layers.1.attn.z", f"layers.3.attn.{kind}", k=6)
    every = torch.tensor(  # [reader, writer]
        [[(dense[kind](r) @ by_hand.ov(1, h)).norm() for h in range(6)] for r in range(6)]
    )
    assert torch.allclose(found.values, strongest(every, 6)[0].float(), rtol=1e-4)


# -- other families ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family", ["llama", "gpt2", "gpt_neox", "cohere", "olmo", "olmo2", "gemma2", "nemotron", "phi3"]
)
def test_neurons_read_and_write_the_stream(of_family: Connect, family: str) -> None:
    """What is folded reads the stream as mlp.pre_activation does, and writes as mlp.contribution, but for biases and means."""
    rmodel = of_family(family)
    look, at = rmodel.look([[0, 40, 41, 42, 99, 7]]), "layers.1"
    (reader,) = module.ends(rmodel, READ.format(1), "readers")
    (writer,) = module.ends(rmodel, WRITE.format(1), "writers")
    stream = "resid_mid" if f"{at}.resid_mid" in rmodel.probe_points else "resid_pre"
    norm = "mlp.norm" if f"{at}.mlp.norm.scale" in rmodel.probe_points else "attn.norm"
    x = look[f"{at}.{stream}"][0]
    if f"{at}.{norm}.scale" in rmodel.probe_points:
        x = x / look[f"{at}.{norm}.scale"][0]
    read = x @ reader.directions(rmodel)[:, 0].T
    seen = look[f"{at}.mlp.pre_activation"][0]
    assert torch.allclose(read - read[0], seen - seen[0], atol=1e-4)

    written = look[f"{at}.mlp.post_activation"][0] @ writer.directions(rmodel)[:, 0]
    seen = look[f"{at}.mlp.contribution"][0]
    if rmodel.catalog.centred:
        seen = seen - seen.mean(-1, keepdim=True)
    if f"{at}.mlp.post_norm.weight" in rmodel.parameters:
        assert (torch.cosine_similarity(written, seen, -1) > 1 - 1e-6).all()
    else:
        assert torch.allclose(written - written[0], seen - seen[0], atol=1e-4)


def test_side_by_side_attention_is_not_read_by_the_mlp_of_its_layer(of_family: Connect) -> None:
    rmodel = of_family("gpt_neox")
    found = experiments.connections(rmodel, "layers.*.attn.z", READ.format(2), k=4, unit=0)
    assert found.more["layer"].max() == 1
    with pytest.raises(garcon.BadRequest, match="Nothing of layers.2.attn.z comes before"):
        experiments.connections(rmodel, "layers.2.attn.z", READ.format(2))


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [
        (("logits", READ.format(1)), garcon.BadRequest, "logits is none of the writers.*embed.out"),
        ((WRITE.format(1), "embed.out"), garcon.BadRequest, "none of the readers.*logits"),
        ((WRITE.format(1), READ.format("*")), garcon.BadRequest, "selects 4 points, and the read"),
        ((WRITE.format(2), READ.format(1)), garcon.BadRequest, "Nothing of .* comes before"),
        ((WRITE.format(9), READ.format(1)), garcon.UnknownPoint, "layers 0 to 3"),
    ],
)
def test_points_that_do_not_fit_are_refused(
    rmodel: garcon.RemoteModel, arguments: tuple[str, str], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        experiments.connections(rmodel, *arguments)


def test_units_and_numbers_that_there_are_not_are_refused(rmodel: garcon.RemoteModel) -> None:
    names = WRITE.format(1), READ.format(2)
    with pytest.raises(garcon.BadRequest, match=r"has no neuron 80\. It has 0 to 79"):
        experiments.connections(rmodel, *names, unit=80)
    with pytest.raises(garcon.BadRequest, match="There is no unit"):
        experiments.connections(rmodel, *names, unit=[])
    with pytest.raises(garcon.BadRequest, match="k is 0"):
        experiments.connections(rmodel, *names, k=0)
    with pytest.raises(garcon.BadRequest, match="'reader' or 'writer'"):
        experiments.connections(rmodel, *names, per="unit")  # type: ignore[arg-type]


def test_experts_are_refused(of_family: Connect) -> None:
    with pytest.raises(garcon.PointUnavailable, match=r"no layers\.0\.mlp\.post_activation"):
        experiments.connections(of_family("mixtral"), WRITE.format(0), "logits", per="writer")
