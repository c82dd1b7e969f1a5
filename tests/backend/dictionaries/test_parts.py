"""A dictionary in parts, as ranks hold it, is the whole one."""

from __future__ import annotations

import pytest
import torch

from garcon_backend.dictionaries import CrossLayer, load, made, plan_of
from garcon_jupyter.errors import BadRequest
from tests.backend.dictionaries.test_formats import CLOSE, off
from tests.dictionaries.fixtures import expected, names

CUTS = (range(0, 16), range(16, 40), range(40, 48))
ALONE = [
    "saelens-standard",
    "saelens-gated",
    "saelens-jumprelu_skip_transcoder",
    "saelens-layer_norm",
    "saelens-batchtopk",
    "dictionary_learning/BatchTopKSAE/trainer_0",
    "circuit_tracer-jumprelu/layer_3.safetensors",
    "circuit_tracer-clt-jump_relu",
    "gemma_scope_2-clt",
    "llama_scope-jumprelu",
    "llama_scope-glu",
    "llama_scope-first",
]
COMPETING = [
    "saelens-topk",
    "saelens-topk-rescaled",
    "saelens-abstopk",
    "openai-topk/v5_32k/layer_3/resid_post_mlp",
    "sparsify-transcode-skip/layers.3.mlp",
    "dictionary_learning/AutoEncoderTopK/trainer_0",
]


@pytest.mark.parametrize("name", ALONE)
def test_latents_that_pass_by_themselves(name: str) -> None:
    want = expected(name)
    parts = [load(want.path, latents=cut) for cut in CUTS]
    latents = [part.encode(want.x) for part in parts]
    assert off(torch.cat(latents, -1), want.codes) < CLOSE
    written = sum(part.written(own) for part, own in zip(parts, latents, strict=True))
    assert isinstance(written, torch.Tensor)
    assert off(parts[1].finished(written, want.x), want.reconstruction) < CLOSE


@pytest.mark.parametrize("name", COMPETING)
def test_latents_that_displace_one_another(name: str) -> None:
    want = expected(name)
    parts = [load(want.path, latents=cut) for cut in CUTS]
    candidates = [part.candidates(want.x, tile=40) for part in parts]
    latents = [part.own(part.chosen(candidates), want.x.shape[:-1]) for part in parts]
    assert off(torch.cat(latents, -1), want.codes) < CLOSE
    written = sum(part.written(own) for part, own in zip(parts, latents, strict=True))
    assert isinstance(written, torch.Tensor)
    assert off(parts[0].finished(written, want.x), want.reconstruction) < CLOSE
    with pytest.raises(BadRequest, match="candidates"):
        parts[0].encode(want.x)
    k = parts[0].form.activation.k
    each_its_own = torch.cat(
        [part.own(part.candidates(want.x), want.x.shape[:-1]) for part in parts], -1
    )
    assert int((each_its_own != 0).sum()) > k * len(
        want.x
    )  # what a rank would take that did not ask the others


def test_a_tie_is_given_to_as_many_as_are_asked_for() -> None:
    dictionary = load(expected("saelens-topk").path, dtype=torch.bfloat16)
    assert dictionary.form.activation.k == 5
    dictionary.encoder.zero_()
    dictionary.tensors["encoder_bias"].fill_(1.0)
    x = torch.ones(100, 16)
    for latents in (dictionary.encode(x), dictionary.encode_sparse(x, tile=700).dense()):
        assert bool(((latents != 0).sum(-1) == 5).all())


@pytest.mark.parametrize(
    "name",
    [
        "saelens-matching_pursuit",
        "saelens-temporal",
        "llama_scope-clt-layertopk",
        "llama_scope-clt-topk",
    ],
)
def test_what_cannot_be_held_in_parts_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="Load it whole"):
        load(expected(name).path, latents=range(16))


def test_groups_are_not_cut() -> None:
    path = expected("sparsify-groupmax/layers.3.mlp").path
    with pytest.raises(BadRequest, match="a group of 8"):
        load(path, latents=range(12))
    want = expected("sparsify-groupmax/layers.3.mlp")
    halves = [load(path, latents=range(24)), load(path, latents=range(24, 48))]
    assert off(torch.cat([half.encode(want.x) for half in halves], -1), want.codes) < CLOSE


def test_no_more_than_a_tile_is_held() -> None:
    """What is held at once of tokens × latents: measured on the pre-activations that are made."""
    dictionary = load(expected("saelens-topk").path)
    made: list[int] = []
    original = dictionary._pre

    def noted(z: torch.Tensor, part: slice = slice(None)) -> torch.Tensor:
        pre = original(z, part)
        made.append(pre.numel())
        return pre

    dictionary._pre = noted  # type: ignore[method-assign]
    x = torch.randn(50, 16)
    sparse = dictionary.encode_sparse(x, tile=400)
    assert max(made) <= 400 and sum(made) == 50 * 48
    assert sparse.nbytes < 50 * 48 * 4


ACROSS = [name for name in names() if "clt" in name]


@pytest.mark.parametrize("name", ACROSS)
def test_of_some_layers_latents_are_those_of_the_whole(name: str) -> None:
    """As a stage of a pipeline holds them: what its layers' latents are, and write into all later ones."""
    want = expected(name)
    whole = load(want.path)
    assert isinstance(whole, CrossLayer)
    codes, last = whole.encode(want.x), whole.description.inputs - 1
    for sources in (range(2), range(1, 3), range(1, 2), range(2, 2)):
        part = made(plan_of(want.path), sources=sources)
        assert isinstance(part, CrossLayer) and part.nbytes < whole.nbytes
        for layer in sources:
            x = want.x[:, layer]
            pre = part.pre_activation_at(x, layer)
            torch.testing.assert_close(pre, whole.pre_activation_at(x, layer))
            if not whole.form.activation.joint:
                torch.testing.assert_close(part.activated_at(pre, layer), codes[:, layer])
            for to in range(layer, last + 1):
                torch.testing.assert_close(
                    part.written_from(codes[:, layer], layer, to),
                    whole.written_from(codes[:, layer], layer, to),
                )
        with pytest.raises(BadRequest, match=f"Latents of {len(sources)} of 3 layers"):
            part.encode(want.x)
    sums = [
        torch.stack([whole.written_from(codes[:, i], i, to) for i in range(to + 1)]).sum(0)
        for to in range(last + 1)
    ]
    torch.testing.assert_close(torch.stack(sums, 1), whole.written(codes))
