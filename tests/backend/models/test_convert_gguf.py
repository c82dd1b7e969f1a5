"""The conversion of GGUF files: what it refuses, and that it notices a wrong snapshot.

What a file says beyond what transformers' map knows is either in the snapshot, whose logits are then those of
the model that was written, or the file is refused by the name of the key or tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from garcon_backend.models import convert_gguf
from garcon_jupyter.errors import GarconError, NotAModel
from tests.checkpoints import make, make_llama
from tests.gguf_files import write_gguf

pytestmark = pytest.mark.sampled

Writer = gguf.GGUFWriter
Adds = Callable[[Writer], None]


def test_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert_gguf.main([str(tmp_path / "no.gguf"), str(tmp_path / "out")]) == 1
    assert f"There is no file {tmp_path / 'no.gguf'}." in capsys.readouterr().err


def test_another_kind_of_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.gguf").write_bytes(b"not one")
    assert convert_gguf.main([str(tmp_path / "a.gguf"), str(tmp_path / "out")]) == 1
    assert "a.gguf is not a GGUF file." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "out").mkdir()
    assert convert_gguf.main([str(tmp_path / "a.gguf"), str(tmp_path / "out")]) == 1
    assert f"{tmp_path / 'out'} exists already." in capsys.readouterr().err


def test_the_comparison_passes_for_the_same_model(tmp_path: Path) -> None:
    model, tokenizer = _load(make_llama(tmp_path))
    convert_gguf._compare(model, tokenizer, tmp_path)


def test_the_comparison_notices_one_changed_bit(tmp_path: Path) -> None:
    model, tokenizer = _load(make_llama(tmp_path))
    gain = model.model.norm.weight.data
    gain[-1] = torch.nextafter(gain[-1], torch.tensor(9.0))
    with pytest.raises(GarconError, match="is not the model that was read"):
        convert_gguf._compare(model, tokenizer, tmp_path)


def test_the_comparison_notices_a_lost_chat_template(tmp_path: Path) -> None:
    model, tokenizer = _load(make_llama(tmp_path))
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(GarconError, match="is not the model that was read"):
        convert_gguf._compare(model, tokenizer, tmp_path)


def _load(directory: Path) -> tuple[Any, Any]:
    return (
        AutoModelForCausalLM.from_pretrained(directory),
        AutoTokenizer.from_pretrained(directory),
    )


# Everything that a file says is in the snapshot ---------------------------------------------------

_OWN_WIDTH = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12}  # 4 · 12 = D
IDS = torch.arange(3, 43)[None]


def converted(checkpoint: Path, work: Path, *more: Any, **options: Any) -> Any:
    """The model that a checkpoint becomes by way of a GGUF file."""
    write_gguf(checkpoint, work / "m.gguf", *more, **options)
    convert_gguf.convert(work / "m.gguf", work / "out")
    return AutoModelForCausalLM.from_pretrained(work / "out")


@torch.no_grad()
def assert_same_logits(checkpoint: Path, made: Any) -> None:
    want = AutoModelForCausalLM.from_pretrained(checkpoint)(IDS).logits
    assert torch.allclose(made(IDS).logits, want, rtol=1e-4, atol=1e-4)


def _linear(writer: Writer) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(4.0)


def _linear_of_old(writer: Writer) -> None:
    writer.add_float32("llama.rope.scale_linear", 4.0)


def _yarn(writer: Writer) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(32)
    writer.add_rope_scaling_yarn_beta_fast(8.0)


def _llama3(factor: float, original: int, base: float = 10000.0, pairs: int = 6) -> Adds:
    """The tensor that Llama 3.1's files have, computed as its paper's code does it."""
    made = []
    for pair in range(pairs):
        length = 2 * math.pi * base ** (pair / pairs)
        if length < original / 4:
            made.append(1.0)
        elif length > original:
            made.append(factor)
        else:
            smooth = (original / length - 1) / 3
            made.append(1 / ((1 - smooth) / factor + smooth))

    def add(writer: Writer) -> None:
        writer.add_tensor("rope_freqs.weight", np.array(made, dtype=np.float32))

    return add


def _of_llama3(factor: float, original: int) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": original,
    }


SCALED: dict[str, tuple[dict[str, Any], Adds]] = {
    "linear": ({"rope_type": "linear", "factor": 4.0}, _linear),
    "linear, old key": ({"rope_type": "linear", "factor": 4.0}, _linear_of_old),
    "yarn": (
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "beta_fast": 8.0,
        },
        _yarn,
    ),
    "llama3, as published": (_of_llama3(8.0, 8192), _llama3(8.0, 8192)),
    "llama3, of another length": (_of_llama3(4.0, 64), _llama3(4.0, 64)),
}


@pytest.mark.parametrize("case", SCALED)
def test_scaled_rotary_frequencies_are_carried_over(case: str, tmp_path: Path) -> None:
    parameters, adds = SCALED[case]
    rope = {"rope_theta": 10000.0, **parameters}
    made = make_llama(tmp_path / "tiny", rope_parameters=rope, **_OWN_WIDTH)
    assert_same_logits(made, converted(made, tmp_path, adds))


def test_factors_for_short_and_for_long_texts(tmp_path: Path) -> None:
    """As Phi-3's files have them: two tensors, the original length, and what attention is scaled by."""
    short, long = [1.0, 1.1, 1.3, 1.6, 2.0, 2.5], [1.0, 2.0, 4.0, 6.0, 8.0, 9.0]
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": short,
        "long_factor": long,
        "attention_factor": 1.25,
        "factor": 8.0,
        "original_max_position_embeddings": 16,
    }
    shape = {**_OWN_WIDTH, "original_max_position_embeddings": 16, "rope_parameters": rope}
    made = make("phi3", tmp_path / "tiny", **shape)

    def adds(writer: Writer) -> None:
        writer.add_rope_dimension_count(12)
        writer.add_rope_scaling_orig_ctx_len(16)
        writer.add_rope_scaling_attn_factors(1.25)
        for name, factors in (("long", long), ("short", short)):
            writer.add_tensor(f"rope_factors_{name}.weight", np.array(factors, dtype=np.float32))

    assert_same_logits(made, converted(made, tmp_path, adds, architecture="phi3"))


def test_the_frequencies_matter(tmp_path: Path) -> None:
    """The comparison above would notice a scaling that is dropped."""
    scaled = {"rope_theta": 10000.0, "rope_type": "linear", "factor": 4.0}
    made = make_llama(tmp_path / "tiny", rope_parameters=scaled, **_OWN_WIDTH)
    with pytest.raises(AssertionError):
        assert_same_logits(made, converted(made, tmp_path))


@pytest.mark.parametrize("flags", [("attention_bias",), ("attention_bias", "mlp_bias")])
def test_biases_are_carried_over(flags: tuple[str, ...], tmp_path: Path) -> None:
    made = make_llama(tmp_path / "tiny", **_OWN_WIDTH, **dict.fromkeys(flags, True))
    assert_same_logits(made, converted(made, tmp_path))


def test_biases_of_some_projections_only(tmp_path: Path) -> None:
    made = make_llama(tmp_path / "tiny", attention_bias=True, **_OWN_WIDTH)
    model = AutoModelForCausalLM.from_pretrained(made)
    for layer in model.model.layers:
        layer.self_attn.o_proj.bias.data.zero_()
    model.save_pretrained(made)
    assert_same_logits(made, converted(made, tmp_path, without="o_proj.bias"))


def test_heads_of_a_width_of_their_own(tmp_path: Path) -> None:
    """6 · 16 is not D, which only the length of the keys tells, and which the map does not read."""
    made = make(
        "qwen3", tmp_path / "tiny", rope_parameters={"rope_theta": 5e5, "rope_type": "default"}
    )

    def adds(writer: Writer) -> None:
        writer.add_key_length(16)
        writer.add_value_length(16)
        writer.add_rope_freq_base(5e5)

    assert_same_logits(made, converted(made, tmp_path, adds, architecture="qwen3"))


def test_what_changes_nothing_is_no_obstacle(tmp_path: Path) -> None:
    made = make_llama(tmp_path / "tiny", **_OWN_WIDTH)

    def adds(writer: Writer) -> None:
        writer.add_name("tiny")
        writer.add_string("general.basename", "tiny")
        writer.add_string("quantize.imatrix.file", "im.dat")
        writer.add_string("mradermacher.quantized_by", "somebody")
        writer.add_rope_dimension_count(12)
        writer.add_key_length(12)
        writer.add_value_length(12)
        writer.add_sliding_window(0)
        writer.add_expert_count(0)
        writer.add_rope_scaling_finetuned(True)
        writer.add_uint32("tokenizer.ggml.eot_token_id", 1)
        writer.add_uint32("tokenizer.ggml.fim_pre_token_id", 1)
        writer.add_add_bos_token(True)
        writer.add_tensor("rope_freqs.weight", np.ones(6, dtype=np.float32))
        writer.add_tensor("blk.0.attn_rot_embd.weight", np.ones(6, dtype=np.float32))

    assert_same_logits(made, converted(made, tmp_path, adds))


def test_an_unknown_way_to_cut_texts_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_llama(tmp_path / "tiny", **_OWN_WIDTH)
    converted(made, tmp_path, lambda writer: writer.add_tokenizer_pre("deepseek-llm"))
    assert "how 'deepseek-llm' cuts them is not known here." in capsys.readouterr().out


# What has no place refuses the file ---------------------------------------------------------------

ONE = np.ones(12, dtype=np.float32)
WIDE = np.ones(48, dtype=np.float32)

REFUSED: dict[str, Adds] = {
    "llama.attention.sliding_window = 4": lambda w: w.add_sliding_window(4),
    "llama.attn_logit_softcapping = 50.0": lambda w: w.add_attn_logit_softcapping(50.0),
    "llama.final_logit_softcapping = 30.0": lambda w: w.add_final_logit_softcapping(30.0),
    "llama.logit_scale = 0.0625": lambda w: w.add_logit_scale(0.0625),
    "llama.residual_scale = 0.5": lambda w: w.add_residual_scale(0.5),
    "llama.attention.scale = 0.5": lambda w: w.add_attention_scale(0.5),
    "llama.attention.causal = False": lambda w: w.add_causal_attention(False),
    "llama.expert_count = 4": lambda w: w.add_expert_count(4),
    "llama.of_the_future = 7": lambda w: w.add_uint32("llama.of_the_future", 7),
    "tokenizer.ggml.of_the_future = 'x'": lambda w: w.add_string(
        "tokenizer.ggml.of_the_future", "x"
    ),
    "diffusion.shift_logits = True": lambda w: w.add_bool("diffusion.shift_logits", True),
    "a tensor blk.0.attn_q_norm.weight": lambda w: w.add_tensor("blk.0.attn_q_norm.weight", ONE),
    "a tensor blk.4.attn_norm.weight": lambda w: w.add_tensor("blk.4.attn_norm.weight", WIDE),
    "a tensor blk.0.attn_norm.bias": lambda w: w.add_tensor("blk.0.attn_norm.bias", WIDE),
    "a tensor blk.0.ffn_gate_inp.weight": lambda w: w.add_tensor("blk.0.ffn_gate_inp.weight", WIDE),
    "a tensor blk.0.attn_sinks.weight": lambda w: w.add_tensor("blk.0.attn_sinks.weight", ONE),
    "turns 6 dimensions": lambda w: w.add_rope_dimension_count(6),
    "rope.scaling.type = 'ntk'": lambda w: w.add_string("llama.rope.scaling.type", "ntk"),
    "rope.scaling.attn_factor = 1.5": lambda w: w.add_rope_scaling_attn_factors(1.5),
    "one of 2 parts": lambda w: w.add_uint16("split.count", 2),
    "of the kind 'adapter'": lambda w: w.add_type("adapter"),
}


@pytest.fixture(scope="module")
def plain_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("plain") / "tiny", **_OWN_WIDTH)


@pytest.mark.parametrize("named", REFUSED)
def test_what_has_no_place_refuses_the_file(named: str, plain_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(NotAModel) as refused:
        converted(plain_llama, tmp_path, REFUSED[named])
    assert named in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_tensor_that_is_missing(plain_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match=r"lacks model.layers.1.self_attn.k_proj.weight, or holds"):
        converted(plain_llama, tmp_path, without="layers.1.self_attn.k_proj")


def test_an_architecture_that_transformers_does_not_read(
    plain_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gguf(plain_llama, tmp_path / "m.gguf", architecture="granite")
    assert convert_gguf.main([str(tmp_path / "m.gguf"), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "m.gguf is a GGUF of 'granite', of which transformers makes no configuration" in said
    assert "Traceback" not in said
