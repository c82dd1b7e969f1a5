"""Every parameter of the table, declared once: a matrix is always [out, in], whatever a checkpoint stores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter of the table: always oriented [out, in], whatever the checkpoint stores."""

    template: str
    dims: tuple[str, ...]
    split: str
    what: str


_OF_NORMS = {"q_norm": "d", "k_norm": "d", "q_a_norm": "r_q", "kv_a_norm": "r_kv"}
"""What norms of attention's own go over; all others go over D."""


def _of_mixers() -> Iterator[ParameterSpec]:
    """Parameters of mixers that are not attention; what a checkpoint stores in one is split, as elsewhere."""
    for name, out, into in (
        ("q_proj", "G*N", "D"),
        ("k_proj", "G*N", "D"),
        ("v_proj", "R*r", "D"),
        ("beta_proj", "R", "D"),
        ("decay_proj", "R", "D"),
        ("decay_down_proj", "r", "D"),
        ("decay_up_proj", "R*N", "r"),
        ("in_gate_proj", "I", "D"),
        ("gate_proj", "I", "D"),
        ("gate_down_proj", "r", "D"),
        ("gate_up_proj", "I", "r"),
        ("x_proj", "R*r", "D"),
        ("B_proj", "G*N", "D"),
        ("C_proj", "G*N", "D"),
        ("dt_proj", "R", "D"),
        ("dt_down_proj", "t", "I"),
        ("out_proj", "D", "I"),
    ):
        template, what = f"layers.{{i}}.mixer.{name}", name.replace("_proj", " projection")
        yield ParameterSpec(template, (out, into), "", what)
        yield ParameterSpec(f"{template}.bias", (out,), "", f"{what} bias")
    for name, dims, what in (
        (
            "conv.weight",
            "C,w",
            "short convolution: w positions of each channel, the last one its own",
        ),
        ("conv.bias", "C", "short convolution bias"),
        ("A_log", "R", "logarithm of how fast the state decays"),
        ("dt_bias", "R", "step bias"),
        ("D", "R", "how much of x is put out beside the state"),
        ("B_norm.weight", "N", "gain of the norm of B"),
        ("C_norm.weight", "N", "gain of the norm of C"),
        ("dt_norm.weight", "t", "gain of the norm of what steps are projected from"),
        ("out_norm.weight", "r", "gain of the norm before the output projection"),
    ):
        yield ParameterSpec(f"layers.{{i}}.mixer.{name}", tuple(dims.split(",")), "", what)


def _of_layers_that_share() -> Iterator[ParameterSpec]:
    """What a layer has of its own beside projections that it shares with others, through a narrow middle of a numbers."""
    for name, out, into in (
        *((f"attn.{x}_own_down_proj", "a", "W") for x in "qkv"),
        ("attn.q_own_up_proj", "H*d", "a"),
        ("attn.k_own_up_proj", "K*d", "a"),
        ("attn.v_own_up_proj", "K*d", "a"),
        ("mlp.own_down_proj", "a", "D"),
        ("mlp.gate_own_up_proj", "M", "a"),
        ("mlp.up_own_up_proj", "M", "a"),
    ):
        what = "what this layer adds to a projection that others share"
        yield ParameterSpec(f"layers.{{i}}.{name}", (out, into), "", what)
    what = "projection of what attention and MLP put out, for the mixer alone"
    yield ParameterSpec("layers.{i}.mixer.aside_proj", ("D", "D"), "", what)
    yield ParameterSpec("layers.{i}.attn.joint_norm.weight", ("W",), "", "norm gain")


def _parameters() -> Iterator[ParameterSpec]:
    yield ParameterSpec("embed.weight", ("V", "D"), "V", "token embedding")
    yield ParameterSpec("pos_embed.weight", ("P", "D"), "", "learned position embedding")
    for template, out, into in (
        ("layers.{i}.attn.q_proj", "H*d", "D"),
        ("layers.{i}.attn.k_proj", "K*d", "D"),
        ("layers.{i}.attn.v_proj", "K*d_v", "D"),
        ("layers.{i}.attn.gate_proj", "H*d", "D"),
        ("layers.{i}.attn.q_a_proj", "r_q", "D"),
        ("layers.{i}.attn.q_b_proj", "H*d", "r_q"),
        ("layers.{i}.attn.kv_a_proj", "r_kv", "D"),
        ("layers.{i}.attn.k_rope_proj", "d_r", "D"),
        ("layers.{i}.attn.k_b_proj", "K*d_n", "r_kv"),
        ("layers.{i}.attn.v_b_proj", "K*d_v", "r_kv"),
        ("layers.{i}.attn.o_proj", "D", "H*d_v"),
        ("layers.{i}.mlp.up_proj", "M", "D"),
        ("layers.{i}.mlp.gate_proj", "M", "D"),
        ("layers.{i}.mlp.down_proj", "D", "M"),
        ("layers.{i}.mlp.experts.{e}.up_proj", "m", "D"),
        ("layers.{i}.mlp.experts.{e}.gate_proj", "m", "D"),
        ("layers.{i}.mlp.experts.{e}.down_proj", "D", "m"),
        ("layers.{i}.mlp.router", "E", "D"),
        ("layers.{i}.mlp.shared.up_proj", "S", "D"),
        ("layers.{i}.mlp.shared.gate_proj", "S", "D"),
        ("layers.{i}.mlp.shared.down_proj", "D", "S"),
        ("layers.{i}.mlp.shared.gate", "1", "D"),
        ("layers.{i}.per_layer.gate_proj", "e", "D"),
        ("layers.{i}.per_layer.out_proj", "D", "e"),
    ):
        letter = next((x for x in ("H", "K", "M", "m", "S") if x in out + into), "")
        what = template.rsplit(".", 1)[1].replace("_proj", " projection")
        yield ParameterSpec(template, (out, into), letter, what)
        yield ParameterSpec(
            f"{template}.bias", (out,), letter if out != "D" else "", f"{what} bias"
        )
    for norm in (
        "embed.norm",
        "layers.{i}.attn.norm",
        "layers.{i}.attn.q_norm",
        "layers.{i}.attn.k_norm",
        "layers.{i}.attn.q_a_norm",
        "layers.{i}.attn.kv_a_norm",
        "layers.{i}.attn.post_norm",
        "layers.{i}.mixer.norm",
        "layers.{i}.mlp.norm",
        "layers.{i}.mlp.post_norm",
        "layers.{i}.per_layer.post_norm",
        "final_norm",
    ):
        size = _OF_NORMS.get(norm.rsplit(".", 1)[-1], "D")
        yield ParameterSpec(f"{norm}.weight", (size,), "", "norm gain")
        yield ParameterSpec(f"{norm}.bias", (size,), "", "norm bias")
    yield ParameterSpec("layers.{i}.attn.z_norm.weight", ("H*d",), "H", "norm gain")
    yield ParameterSpec("layers.{i}.mlp.neuron_norm.weight", ("M",), "M", "norm gain")
    yield from _of_mixers()
    yield from _of_layers_that_share()
    yield ParameterSpec("unembed.weight", ("V", "D"), "V", "unembedding")
    yield ParameterSpec("unembed.bias", ("V",), "V", "unembedding bias")


PARAMETERS: tuple[ParameterSpec, ...] = tuple(_parameters())
