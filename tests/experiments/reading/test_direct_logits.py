"""Direct logit attribution against forwards written out by hand, and the wrong sums that it must not be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter import BadRequest, PointUnavailable, experiments
from garcon_jupyter.model_files import embedded
from tests import by_hand, checkpoints
from tests.conftest import quiet
from tests.oracle import Plain

IDS = [[0, 40, 41, 42, 99, 7, 41]]
ANSWERS = (17, 23)
TEXT = "When John and Mary went to the shops, John gave the bag to"


@dataclass
class Hand:
    """A checkpoint as we serve it, and every value of it by hand, in float64."""

    rmodel: garcon.RemoteModel
    values: dict[str, Tensor]
    model: Any
    gain: Tensor
    shift: Tensor
    centred: bool

    def towards(self, x: Tensor) -> Tensor:
        """What vectors [..., D] at the last position write to the difference of the answers' logits."""
        scale = self.values["final_norm.scale"][0, -1]
        x = x - x.mean(-1, keepdim=True) if self.centred else x
        return (x / scale * self.gain) @ self.unembedded()

    def unembedded(self) -> Tensor:
        rows = self.model.get_output_embeddings().weight
        return (rows[ANSWERS[0]] - rows[ANSWERS[1]]).detach()

    def last(self, name: str) -> Tensor:
        return self.values[name][0, -1]


def hand(family: str, folder: Path) -> Hand:
    path = checkpoints.make(family, folder)
    theirs = by_hand.by_hand(family, path)
    ids = torch.tensor(IDS)
    with torch.no_grad():
        values = dict(theirs.run(ids, torch.ones_like(ids)).values)
    rmodel = garcon.connect(open_here(path, name=family))
    if family == "gpt2":
        norm = theirs.model.transformer.ln_f
        return Hand(rmodel, values, theirs.model, norm.weight.detach(), norm.bias.detach(), True)
    gain = theirs.final_norm().weight.detach() + theirs.gain_offset
    return Hand(rmodel, values, theirs.model, gain, torch.zeros_like(gain), False)


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Hand:
    return hand(request.param, tmp_path_factory.mktemp(request.param))


def told(tiny: Hand, by: str) -> Any:
    return experiments.direct_logit_attribution(tiny.rmodel, IDS, ANSWERS, by=by)


def near(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours.double(), theirs, rtol=1e-4, atol=1e-5)


def test_components_are_what_is_written_by_hand(tiny: Hand) -> None:
    found = told(tiny, "component")
    start = tiny.last("layers.0.resid_pre")
    named = {"embedding": start}
    if "pos_embed.out" in tiny.values:
        positions = tiny.values["pos_embed.out"].expand(1, len(IDS[0]), -1)[0, -1]
        named = {"embedding": start - positions, "positions": positions}
    for layer in range(4):
        for kind, half in (("attention", "attn"), ("mlp", "mlp")):
            named[f"{kind} {layer}"] = tiny.last(f"layers.{layer}.{half}.contribution")
    assert found.axes["component"] == (*named, "biases")
    assert near(found.values[:-1], torch.stack([tiny.towards(x) for x in named.values()]))
    assert near(found.values[-1], tiny.shift @ tiny.unembedded())
    assert len(tiny.rmodel.recordings()) == 0


def test_layers_are_sums_of_components(tiny: Hand) -> None:
    components, layers = told(tiny, "component"), told(tiny, "layer")
    assert layers.axes["layer"] == ("embedding", 0, 1, 2, 3, "biases")
    for layer in range(4):
        parts = [components.at(component=f"{kind} {layer}") for kind in ("attention", "mlp")]
        assert near(layers.at(layer=layer), sum(parts).double())


def _post_norm(tiny: Hand, layer: int, half: str) -> Tensor:
    """By what each dimension of an output is multiplied on its way into the stream."""
    out, added = (tiny.last(f"layers.{layer}.{half}.{x}") for x in ("out", "contribution"))
    return added / out


def test_heads_and_neurons_and_sources(tiny: Hand) -> None:
    heads, neurons, sources = (told(tiny, by) for by in ("head", "neuron", "position"))
    for layer in range(4):
        on = f"layers.{layer}."
        written = tiny.last(f"{on}attn.head_out") * _post_norm(tiny, layer, "attn")
        assert near(heads.at(layer=layer), tiny.towards(written))
        down = tiny.rmodel.get_parameter(f"{on}mlp.down_proj").double()
        columns = (down * tiny.last(f"{on}mlp.post_activation")).T * _post_norm(tiny, layer, "mlp")
        assert near(neurons.at(layer=layer), tiny.towards(columns))
        o_proj = tiny.rmodel.get_parameter(f"{on}attn.o_proj").double()
        pattern, v = tiny.values[f"{on}attn.pattern"][0, :, -1], tiny.values[f"{on}attn.v"][0]
        v = v.repeat_interleave(len(pattern) // v.shape[1], 1)
        z = torch.einsum("hs,shd->shd", pattern, v).flatten(1)
        assert near(
            sources.at(layer=layer), tiny.towards(z @ o_proj.T * _post_norm(tiny, layer, "attn"))
        )


def test_parts_add_up(tiny: Hand) -> None:
    """To the model's own difference of logits; of soft-capped ones to that before the cap."""
    logits = tiny.last("logits")[list(ANSWERS)]
    cap = getattr(tiny.model.config, "final_logit_softcapping", None)
    before = logits if cap is None else cap * torch.atanh(logits / cap)
    for by in ("component", "layer", "head", "neuron", "position"):
        found = told(tiny, by)
        rest = found.more.get("rest", torch.zeros(1))
        assert len(found.facts.get("rest", [0])) == len(rest)
        total = float(found.values.sum() + rest.sum())
        assert total == pytest.approx(float(before[0] - before[1]), rel=2e-5)
        assert found.more["total"] == pytest.approx(total, rel=1e-5)
        assert found.facts["difference"] == pytest.approx(float(logits[0] - logits[1]), rel=1e-5)
        assert any("soft-capped" in limit for limit in found.facts["limits"]) == (cap is not None)
    assert (
        cap is None or abs(float(before[0] - before[1]) / float(logits[0] - logits[1]) - 1) > 1e-3
    )


def test_what_a_layernorm_needs(tmp_path: Path) -> None:
    """Without its mean taken away, or without its bias folded in, GPT-2's parts are another number."""
    tiny = hand("gpt2", tmp_path)
    found = float(told(tiny, "component").more["total"])
    stream, scale = tiny.last("layers.3.resid_post"), tiny.last("final_norm.scale")
    uncentred = float((stream / scale * tiny.gain + tiny.shift) @ tiny.unembedded())
    unbiased = float(tiny.towards(stream))
    right = unbiased + float(tiny.shift @ tiny.unembedded())
    assert found == pytest.approx(right, rel=1e-5)
    assert found != pytest.approx(uncentred, rel=1e-2) and found != pytest.approx(
        unbiased, rel=1e-2
    )


def test_over_ranks(either: garcon.RemoteModel, plain: Plain) -> None:
    logits = plain.logits(IDS)[0, -1].double()
    for by in ("component", "head", "neuron", "position"):
        found = experiments.direct_logit_attribution(either, IDS, ANSWERS, by=by)
        assert float(found.more["total"]) == pytest.approx(float(logits[17] - logits[23]), rel=1e-4)


def test_other_places_and_answers(rmodel: garcon.RemoteModel, plain: Plain) -> None:
    logits = plain.logits(IDS)[0].double()
    one = experiments.direct_logit_attribution(rmodel, IDS, 17, position=3)
    assert float(one.more["total"]) == pytest.approx(float(logits[3, 17]), rel=1e-4)
    best = logits[-1].topk(2)
    default = experiments.direct_logit_attribution(rmodel, IDS)
    assert default.facts["answers"] == best.indices.tolist()
    assert float(default.more["total"]) == pytest.approx(float(-best.values.diff()), rel=1e-3)
    sources = experiments.direct_logit_attribution(rmodel, IDS, ANSWERS, "position", position=2)
    assert sources.values[:, :3].all() and not sources.values[:, 3:].any()


def test_smollm2(smollm2: garcon.RemoteModel) -> None:
    """The parts of a real model, and three sums that are wrong by far."""
    found = experiments.direct_logit_attribution(smollm2, TEXT, (" Mary", " John"))
    plain = Plain(embedded.fetch("smollm2", progress=quiet))
    ids = plain.tokenizer([TEXT], return_tensors="pt")["input_ids"]
    first, second = (plain.tokenizer(a)["input_ids"][0] for a in (" Mary", " John"))
    parts: list[Tensor] = []

    def caught(_: Any, __: Any, out: Any) -> None:
        parts.append((out[0] if isinstance(out, tuple) else out)[0, -1].double())

    stem = plain.model.model
    modules = [stem.embed_tokens, *(m for b in stem.layers for m in (b.self_attn, b.mlp))]
    handles = [module.register_forward_hook(caught) for module in modules]
    logits = plain.logits(ids)[0, -1].double()
    for handle in handles:
        handle.remove()
    difference = float(logits[first] - logits[second])
    written, whole = torch.stack(parts), torch.stack(parts).sum(0)
    rows = plain.model.lm_head.weight.detach().double()
    towards, gain = rows[first] - rows[second], stem.norm.weight.detach().double()

    def scale(x: Tensor) -> Tensor:
        return (x.pow(2).mean(-1, keepdim=True) + stem.norm.variance_epsilon).sqrt()

    assert torch.allclose(
        found.values[:-1].double(), written / scale(whole) * gain @ towards, atol=2e-5
    )
    total = float(found.more["total"])
    assert total == pytest.approx(difference, rel=1e-5)
    wrong = {
        "no gain": float(whole / scale(whole) @ towards),
        "no norm": float(whole @ towards),
        "a norm for each part": float((written / scale(written) * gain @ towards).sum()),
    }
    for value in wrong.values():
        assert total != pytest.approx(value, rel=0.1)
    mlps = sum(float(found.at(component=f"mlp {layer}")) for layer in range(len(stem.layers)))
    neurons = experiments.direct_logit_attribution(smollm2, TEXT, (" Mary", " John"), by="neuron")
    assert neurons.values.shape == (30, 1536)
    assert float(neurons.values.double().sum()) == pytest.approx(mlps, rel=1e-5)


def test_mistakes_are_told(rmodel: garcon.RemoteModel) -> None:
    tell: Callable[..., Any] = experiments.direct_logit_attribution
    with pytest.raises(BadRequest, match="no by='experts'.*component"):
        tell(rmodel, IDS, ANSWERS, by="experts")
    with pytest.raises(BadRequest, match="no position 7.*0 to 6"):
        tell(rmodel, IDS, ANSWERS, position=7)
    with pytest.raises(BadRequest, match="3 answers"):
        tell(rmodel, IDS, (1, 2, 3))
    with pytest.raises(BadRequest, match="there are 2"):
        tell(rmodel, [IDS[0], IDS[0]], ANSWERS)
    with pytest.raises(garcon.GarconError):
        tell(rmodel, IDS, (17, 100_000))
    assert len(rmodel.recordings()) == 0


def test_what_has_no_stream_of_parts_is_refused(tmp_path: Path) -> None:
    for family, error, words in (
        ("minimax", BadRequest, "layer 0 is no sum of what its parts add"),
        ("gemma3n_text", PointUnavailable, "several streams"),
    ):
        rmodel = garcon.connect(open_here(checkpoints.make(family, tmp_path / family)))
        with pytest.raises(error, match=words):
            experiments.direct_logit_attribution(rmodel, IDS, ANSWERS)
