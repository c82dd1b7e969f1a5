"""Twenty mistakes that a reader of dictionaries makes without a word, put into this one: each is seen.

Each is a change of what was read, or of one line of what is computed, after which latents or reconstruction are off by more
than a hundredth. Unchanged they are the library's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from garcon_backend.dictionaries import Dictionary, norms, reading, selection
from garcon_backend.dictionaries.plan import ReadingPlan, StoredWeight
from garcon_jupyter import RemoteModel
from garcon_jupyter.dictionaries import Activation, Form, InputNorm, point_of
from tests.backend.dictionaries.test_formats import CLOSE, off
from tests.dictionaries.fixtures import expected

SEEN = 1e-2
OPENAI = "openai-topk/v5_32k/layer_3/resid_post_mlp"
TRACED = "circuit_tracer-jumprelu/layer_3.safetensors"

Change = Callable[[ReadingPlan], ReadingPlan]


def form(**changed: Any) -> Change:
    def change(plan: ReadingPlan) -> ReadingPlan:
        description = plan.description
        return replace(
            plan, description=replace(description, form=replace(description.form, **changed))
        )

    return change


def activation(**changed: Any) -> Change:
    return lambda plan: form(activation=replace(plan.description.form.activation, **changed))(plan)


def weight(name: str, **changed: Any) -> Change:
    return lambda plan: replace(
        plan, weights={**plan.weights, name: replace(plan.weights[name], **changed)}
    )


def transposed(name: str) -> Change:
    return lambda plan: weight(name, axes=plan.weights[name].axes[::-1])(plan)


@dataclass(frozen=True)
class Mistake:
    number: int
    what: str
    name: str
    change: Change


def _threshold_of_top_k(plan: ReadingPlan) -> ReadingPlan:
    return replace(form(activation=Activation("jumprelu"))(plan), constants={"threshold": 0.75})


MISTAKES = [
    Mistake(1, "b_dec subtracted where it is not", "dictionary_learning/JumpReluAutoEncoder/trainer_0", form(subtracts_bias=True)),
    Mistake(1, "b_dec subtracted where it is not", "gemma_scope_2", form(subtracts_bias=True)),
    Mistake(1, "b_dec subtracted where it is not", "llama_scope-relu", form(subtracts_bias=True)),
    Mistake(1, "b_dec subtracted by a transcoder", "sparsify-transcode/layers.3.mlp", form(subtracts_bias=True)),
    Mistake(1, "b_dec not subtracted where it is", "saelens-standard", form(subtracts_bias=False)),
    Mistake(2, "TopK of OpenAI without its norm", OPENAI, form(norm_in=InputNorm(), norm_out=InputNorm())),
    Mistake(4, "activations as they are into Llama Scope's encoder", "llama_scope-jumprelu", form(norm_in=InputNorm())),
    Mistake(6, "a logarithm of a threshold as the threshold", "llama_scope-jumprelu", weight("threshold", function=None)),
    Mistake(7, "the stored threshold of a top-k", "dictionary_learning/AutoEncoderTopK/trainer_0", _threshold_of_top_k),
    Mistake(7, "k of a batch-top-k", "dictionary_learning/BatchTopKSAE/trainer_0", form(activation=Activation("topk", 5))),
    Mistake(8, "norms of the decoder left out", "saelens-topk-rescaled", form(decoder_norms="")),
    Mistake(8, "norms of the decoder left out", "llama_scope-topk", form(decoder_norms="")),
    Mistake(10, "skip transposed", "saelens-skip_transcoder", transposed("skip")),
    Mistake(10, "skip transposed", "sparsify-skip/transformer.h.3", transposed("skip")),
    Mistake(10, "skip transposed", "circuit_tracer-skip/layer_3.safetensors", transposed("skip")),
    Mistake(10, "skip transposed", "gemma_scope_2-transcoder", transposed("skip")),
    Mistake(11, "skip left out", "saelens-skip_transcoder", form(skip=False)),
    Mistake(11, "skip left out", "sparsify-transcode-skip/layers.3.mlp", form(skip=False)),
    Mistake(12, "relu before a jumprelu that has none", TRACED, activation(rectified=True)),
    Mistake(12, "no relu before a jumprelu that has one", "saelens-jumprelu", activation(rectified=False)),
]  # fmt: skip


def errors(name: str, dictionary: Dictionary) -> tuple[float, float]:
    """How far latents, and what is reconstructed of them, are from the library's."""
    want = expected(name)
    latents = dictionary.encode(want.x)
    return off(latents, want.codes), off(dictionary.decode(latents, want.x), want.reconstruction)


@pytest.mark.parametrize(
    "mistake", MISTAKES, ids=lambda each: f"{each.number} {each.what} {each.name.split('/')[0]}"
)
def test_what_is_read_wrongly_is_seen(mistake: Mistake) -> None:
    plan = reading.plan_of(expected(mistake.name).path)
    assert max(errors(mistake.name, reading.made(plan))) < CLOSE
    assert max(errors(mistake.name, reading.made(mistake.change(plan)))) > SEEN


@pytest.mark.parametrize("name", [OPENAI, "saelens-layer_norm"])
def test_3_biased_deviation_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary = reading.load(expected(name).path)
    before = dictionary.pre_activation(expected(name).x)
    monkeypatch.setattr(
        norms,
        "_moments",
        lambda x: (x.mean(-1, keepdim=True), x.std(-1, keepdim=True, correction=0)),
    )
    assert max(errors(name, dictionary)) > SEEN
    assert off(dictionary.pre_activation(expected(name).x), before) > 0.05


def test_5_a_fold_that_leaves_the_threshold_is_seen() -> None:
    """As llamascopium folds."""
    for name in ("llama_scope-jumprelu", "llama_scope-glu"):
        dictionary = reading.load(expected(name).path)
        scale, back = dictionary.form.norm_in.scale[0], dictionary.form.norm_out.scale[0]
        dictionary.tensors["encoder_bias"] /= scale
        dictionary.tensors["output_bias"] /= back
        dictionary.decoder *= scale / back
        dictionary.scale = dictionary.decoder.norm(dim=-1)
        dictionary.form = replace(dictionary.form, norm_in=InputNorm(), norm_out=InputNorm())
        assert errors(name, dictionary)[1] > 0.5


def test_9_a_decoder_made_to_unit_norm_is_seen_in_the_latents_alone() -> None:
    """As AutoEncoder.from_pretrained does where it is not told otherwise."""
    name = "dictionary_learning/AutoEncoder/trainer_0"
    dictionary = reading.load(expected(name).path)
    lengths = dictionary.decoder.norm(dim=-1)
    dictionary.decoder /= lengths[:, None]
    dictionary.encoder *= lengths[:, None]
    dictionary.tensors["encoder_bias"] *= lengths
    latents, reconstruction = errors(name, dictionary)
    assert latents > SEEN and reconstruction < CLOSE


def test_10_an_encoder_as_large_as_its_input_is_not_turned() -> None:
    """Where D = F no shape tells. The letters of the axes are the format's, and not guessed of sizes."""
    for name, axes in {
        "saelens-standard": "DF",
        "openai-relu/v5_32k/layer_3/resid_post_mlp": "FD",
    }.items():
        assert reading.plan_of(expected(name).path).weights["encoder"].axes == axes
        weights = reading.plan_of(expected(name).path).weights["encoder"]
        square = torch.randn(16, 16)
        stored = replace(weights.stored, shape=(16, 16), read=lambda axis, part, it=square: it)
        read = replace(weights, stored=stored).read(slice(None), torch.float32)
        assert torch.equal(read, square.T if axes == "DF" else square)


@pytest.mark.parametrize(
    "name", ["saelens-jumprelu", TRACED, "llama_scope-jumprelu", "gemma_scope_2"]
)
def test_13_what_equals_its_threshold_does_not_pass(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dictionary = reading.load(expected(name).path)
    dictionary.form = replace(
        dictionary.form, norm_in=InputNorm(), decoder_norms="", subtracts_bias=False
    )
    dictionary.scale, dictionary.threshold = None, dictionary.tensors["encoder_bias"].clone()
    nothing = torch.zeros(1, 16)
    assert bool((dictionary.encode(nothing) == 0).all())

    def at_least(pre: Tensor, of: Activation, threshold: Tensor | None = None) -> Tensor:
        return (pre.relu() if of.rectified else pre) * (pre >= threshold)

    monkeypatch.setattr(selection, "passed", at_least)
    assert float(dictionary.encode(nothing).abs().max()) > SEEN


def test_14_what_is_added_to_the_stream_is_not_the_modules_output(gemma2: RemoteModel) -> None:
    """TransformerLens's hook_mlp_out is added to the stream, after Gemma's second norm; hook_mlp_in is the stream before the first."""
    added, before, after = (
        point_of(f"blocks.1.hook_{name}") for name in ("mlp_out", "mlp_in", "resid_post")
    )
    values = {
        name: _value(gemma2, name)
        for name in (added, before, after, "layers.1.mlp.out", "layers.1.mlp.in")
    }
    assert off(values[before] + values[added], values[after]) < CLOSE
    apart = values["layers.1.mlp.out"] - values[added]
    assert float(apart.norm() / values[added].norm()) > 0.5
    assert off(values["layers.1.mlp.in"], values[before]) > SEEN


@dataclass(frozen=True)
class Turned:
    """A weight whose decoders stand in the opposite order along an axis."""

    weight: StoredWeight
    axis: int

    def read(self, part: slice, dtype: torch.dtype) -> Tensor:
        return self.weight.read(part, dtype).flip(self.axis)


@pytest.mark.parametrize(
    ("name", "axis"), [("circuit_tracer-clt-jump_relu", 1), ("llama_scope-clt", 0)]
)
def test_15_decoders_of_the_wrong_layers_are_seen(
    name: str, axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = reading._by_target

    def wrong(name: str, each: list[Any], *rest: Any) -> dict[str, Tensor]:
        return original(name, [Turned(weight, axis) for weight in each], *rest)  # type: ignore[misc]

    assert max(errors(name, reading.load(expected(name).path))) < CLOSE
    monkeypatch.setattr(reading, "_by_target", wrong)
    assert errors(name, reading.load(expected(name).path))[1] > SEEN


def test_16_places_within_a_group_are_not_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "sparsify-groupmax/layers.3.mlp"

    def local(pre: Tensor, k: int) -> Tensor:
        values, places = pre.relu().unflatten(-1, (k, -1)).max(dim=-1)
        return torch.zeros_like(pre).scatter(-1, places, values)

    monkeypatch.setattr(selection, "_largest_of_groups", local)
    assert max(errors(name, reading.load(expected(name).path))) > SEEN


def test_17_a_dictionary_in_the_models_bfloat16_is_seen() -> None:
    name = "saelens-jumprelu"
    assert (
        reading.load(expected(name).path).encode(expected(name).x.bfloat16()).dtype == torch.float32
    )
    assert max(errors(name, reading.load(expected(name).path, dtype=torch.bfloat16))) > SEEN


def test_18_latents_that_are_chosen_of_a_batch_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As batch-top-k does, whose count is of the first axis."""
    name = "saelens-topk"

    def of_all(pre: Tensor, of: Activation) -> Tensor:
        flat = pre.flatten()
        values, places = flat.topk(of.k * pre.shape[0])
        return torch.zeros_like(flat).scatter(-1, places, values.relu()).view_as(pre)

    monkeypatch.setattr(selection, "_largest", of_all)
    dictionary = reading.load(expected(name).path)
    assert max(errors(name, dictionary)) > SEEN
    x = expected(name).x
    assert off(dictionary.encode(x[None]), dictionary.encode(x)) > SEEN


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_19_nothing_edited_is_nothing_changed_to_the_last_bit(dtype: torch.dtype) -> None:
    """The error added to the new reconstruction, as others have it, rounds."""
    dictionary = reading.load(expected("saelens-topk").path)
    x = (torch.randn(64, 16) * 20).to(dtype)
    latents = dictionary.encode(x)
    assert torch.equal(dictionary.edited(x, x, latents, latents.clone()), x)
    reconstruction = dictionary.decode(latents).to(dtype)
    assert not torch.equal(reconstruction + (x - reconstruction), x)
    edited = latents.clone()
    token, latent = (int(each[0]) for each in latents.nonzero(as_tuple=True))
    edited[token, latent] = 0
    change = dictionary.edited(x.float(), x, latents, edited) - x.float()
    wanted = torch.zeros_like(change)
    wanted[token] = -latents[token, latent] * dictionary.decoder[latent]
    assert (
        off(change, wanted) < 1e-4
        and not bool(change[:token].any())
        and not bool(change[token + 1 :].any())
    )


def test_20_tokens_without_those_before_them_are_seen() -> None:
    for name in ("saelens-temporal", "saelens-temporal-untied"):
        want = expected(name)
        dictionary = reading.load(want.path)
        apart = want.x.flatten(0, 1)[:, None]
        assert off(dictionary.encode(apart), want.codes) > SEEN
        assert off(dictionary.reconstruction(apart), want.reconstruction) > SEEN


def test_a_bias_moves_the_latents_where_it_is_subtracted_and_nowhere_else() -> None:
    moves = {
        "saelens-jumprelu": True,
        "openai-relu/v5_32k/layer_3/resid_post_mlp": True,
        "gemma_scope_2": False,
        "llama_scope-jumprelu": False,
        "dictionary_learning/JumpReluAutoEncoder/trainer_0": False,
    }
    for name, wanted in moves.items():
        dictionary, x = reading.load(expected(name).path), expected(name).x
        before = dictionary.encode(x)
        dictionary.tensors["output_bias"] += 5
        assert bool((dictionary.encode(x) != before).any()) == wanted, name


def test_a_threshold_below_zero() -> None:
    """A pre-activation of -0.2 at a threshold of -0.5: -0.2 for circuit-tracer, 0 for SAELens."""
    pre, threshold = torch.tensor([-0.2]), torch.tensor([-0.5])
    forms: dict[str, Form] = {
        name: reading.plan_of(expected(name).path).description.form
        for name in (TRACED, "saelens-jumprelu")
    }
    assert selection.passed(pre, forms[TRACED].activation, threshold).item() == pytest.approx(-0.2)
    assert selection.passed(pre, forms["saelens-jumprelu"].activation, threshold).item() == 0


def _save(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.value = tensor


def _value(model: RemoteModel, point: str) -> Tensor:
    model.forward([[2, 3, 5, 7]], probes=[model.probe_points[point].probe(_save)], logits="none")
    value: Tensor = model.recordings()[point].value
    return value
