"""Names of TransformerLens, Hugging Face, folders and OpenAI as points."""

from __future__ import annotations

import pytest

from garcon_jupyter.dictionaries import NamedPoint, point_of
from garcon_jupyter.errors import UnclearPoint
from garcon_jupyter.points import parse_point

NAMES = {
    "hook_embed": "embed.out",
    "hook_pos_embed": "pos_embed.out",
    "blocks.3.hook_resid_pre": "layers.3.resid_pre",
    "blocks.3.hook_resid_mid": "layers.3.resid_mid",
    "blocks.30.hook_resid_post": "layers.30.resid_post",
    "blocks.3.hook_attn_out": "layers.3.attn.contribution",
    "blocks.3.hook_mlp_out": "layers.3.mlp.contribution",
    "blocks.3.mlp.hook_out": "layers.3.mlp.out",
    "blocks.3.attn.hook_out": "layers.3.attn.out",
    "blocks.3.mlp.hook_in": "layers.3.mlp.in",
    "blocks.3.hook_mlp_in": "layers.3.resid_mid",
    "blocks.3.ln1.hook_normalized": "layers.3.attn.norm.normalized",
    "blocks.3.ln2.hook_normalized": "layers.3.mlp.norm.normalized",
    "blocks.3.ln2.hook_scale": "layers.3.mlp.norm.scale",
    "blocks.3.attn.hook_z": "layers.3.attn.z",
    "blocks.3.attn.hook_rot_q": "layers.3.attn.q_rot",
    "blocks.3.attn.hook_result": "layers.3.attn.head_out",
    "blocks.3.mlp.hook_pre": "layers.3.mlp.pre_activation",
    "blocks.3.mlp.hook_post": "layers.3.mlp.post_activation",
    "ln_final.hook_normalized": "final_norm.normalized",
    "unembed.hook_in": "final_norm.out",
    "layers.3": "layers.3.resid_post",
    "layers.3.mlp": "layers.3.mlp.out",
    "layers.3.self_attn": "layers.3.attn.out",
    "transformer.h.3": "layers.3.resid_post",
    "h.3.mlp": "layers.3.mlp.out",
    "gpt_neox.layers.3.attention": "layers.3.attn.out",
    "model.layers.3.output": "layers.3.resid_post",
    "model.layers.3.self_attn.o_proj.input": "layers.3.attn.z",
    "model.layers.3.pre_feedforward_layernorm.output": "layers.3.mlp.in",
    "model.layers.3.post_feedforward_layernorm.output": "layers.3.mlp.contribution",
    "resid_post_layer_3": "layers.3.resid_post",
    "mlp_layer_3": "layers.3.mlp.out",
    "attn_layer_3": "layers.3.attn.out",
    "resid_delta_mlp@3": "layers.3.mlp.contribution",
    "mlp_post_act@3": "layers.3.mlp.post_activation",
    "layers.3.resid_post": "layers.3.resid_post",
}


@pytest.mark.parametrize(("name", "point"), NAMES.items())
def test_a_name_means_one_point(name: str, point: str) -> None:
    assert point_of(name) == point
    assert parse_point(point)


def test_what_means_two_things_is_refused_with_both() -> None:
    with pytest.raises(
        UnclearPoint, match=r"may be layers.3.mlp.in or layers.3.attn.contribution"
    ) as caught:
        point_of("model.layers.3.post_attention_layernorm.output")
    assert caught.value.nearest == ("layers.3.mlp.in", "layers.3.attn.contribution")
    assert "at=" in caught.value.remedy


def test_what_is_no_point_says_what_it_is() -> None:
    with pytest.raises(UnclearPoint, match=r"layers.7.resid_pre"):
        point_of("blocks.7.hook_attn_in")


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UnclearPoint, match="blocks.3.hook_resid_post"):
        point_of("blocks.12.hook_resid_pots")


def test_no_name_at_all() -> None:
    with pytest.raises(UnclearPoint, match="no point is named"):
        _ = NamedPoint("").point
