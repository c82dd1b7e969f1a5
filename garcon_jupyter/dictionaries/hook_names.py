"""The table of other libraries' names for points: TransformerLens, Hugging Face modules, folders, OpenAI's locations.

A row is a regular expression, whose group ``i`` is the layer, and the points that the name means there. Where it means one
thing in one architecture and another in the next, all are listed, and the name alone is not enough.

``out`` and ``contribution`` differ where a sub-block's output is normalised (Gemma 2 and 3, OLMo 2). TransformerLens's
``hook_mlp_out`` is what is added to the stream, so a contribution; the output of a Hugging Face module is raw.
"""

from __future__ import annotations

_L = r"blocks\.(?P<i>\d+)\."
_HF = r"(?:model\.)?(?:language_model\.)?(?:transformer\.)?(?:gpt_neox\.)?(?:layers|h)\.(?P<i>\d+)"

HOOK_NAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    # TransformerLens
    (r"hook_embed", ("embed.out",)),
    (r"hook_pos_embed", ("pos_embed.out",)),
    (_L + r"hook_resid_(?P<part>pre|mid|post)", ("layers.{i}.resid_{part}",)),
    (_L + r"hook_(?P<part>attn|mlp)_out", ("layers.{i}.{part}.contribution",)),
    (_L + r"(?P<part>attn|mlp)\.hook_out", ("layers.{i}.{part}.out",)),
    (_L + r"(?P<part>attn|mlp)\.hook_in", ("layers.{i}.{part}.in",)),
    (_L + r"hook_mlp_in", ("layers.{i}.resid_mid",)),
    (_L + r"ln1\.hook_(?P<part>normalized|scale)", ("layers.{i}.attn.norm.{part}",)),
    (_L + r"ln2\.hook_(?P<part>normalized|scale)", ("layers.{i}.mlp.norm.{part}",)),
    (_L + r"attn\.hook_(?P<part>[qkvz])", ("layers.{i}.attn.{part}",)),
    (_L + r"attn\.hook_rot_(?P<part>[qk])", ("layers.{i}.attn.{part}_rot",)),
    (_L + r"attn\.hook_result", ("layers.{i}.attn.head_out",)),
    (_L + r"mlp\.hook_pre", ("layers.{i}.mlp.pre_activation",)),
    (_L + r"mlp\.hook_pre_linear", ("layers.{i}.mlp.pre_linear",)),
    (_L + r"mlp\.hook_post", ("layers.{i}.mlp.post_activation",)),
    (r"ln_final\.hook_(?P<part>normalized|scale)", ("final_norm.{part}",)),
    (r"unembed\.hook_in", ("final_norm.out",)),
    # Hugging Face modules, and folders that are named by them
    (_HF + r"(?:\.output)?", ("layers.{i}.resid_post",)),
    (_HF + r"\.input", ("layers.{i}.resid_pre",)),
    (_HF + r"\.(?:mlp|feed_forward)(?:\.output)?", ("layers.{i}.mlp.out",)),
    (_HF + r"\.(?:mlp|feed_forward)\.input", ("layers.{i}.mlp.in",)),
    (_HF + r"\.(?:self_attn|attn|attention)(?:\.output)?", ("layers.{i}.attn.out",)),
    (
        _HF + r"\.(?:self_attn|attn|attention)\.(?:o_proj|c_proj|dense)\.input",
        ("layers.{i}.attn.z",),
    ),
    (
        _HF + r"\.mlp\.(?:down_proj|c_proj|dense_4h_to_h)\.input",
        ("layers.{i}.mlp.post_activation",),
    ),
    (_HF + r"\.input_layernorm\.output", ("layers.{i}.attn.norm.out",)),
    (_HF + r"\.pre_feedforward_layernorm\.output", ("layers.{i}.mlp.in",)),
    (_HF + r"\.post_feedforward_layernorm\.output", ("layers.{i}.mlp.contribution",)),
    # In Llama the norm before the MLP, in Gemma 2 the one after attention.
    (
        _HF + r"\.post_attention_layernorm\.output",
        ("layers.{i}.mlp.in", "layers.{i}.attn.contribution"),
    ),
    # dictionary_learning: the output of a submodule of nnsight
    (r"resid(?:_post)?_layer_(?P<i>\d+)", ("layers.{i}.resid_post",)),
    (r"resid_pre_layer_(?P<i>\d+)", ("layers.{i}.resid_pre",)),
    (r"mlp(?:_out)?_layer_(?P<i>\d+)", ("layers.{i}.mlp.out",)),
    (r"att(?:n|ention)(?:_out)?_layer_(?P<i>\d+)", ("layers.{i}.attn.out",)),
    # OpenAI's locations, with the layer behind
    (r"mlp_post_act@(?P<i>\d+)", ("layers.{i}.mlp.post_activation",)),
    (r"resid_delta_attn@(?P<i>\d+)", ("layers.{i}.attn.contribution",)),
    (r"resid_delta_mlp@(?P<i>\d+)", ("layers.{i}.mlp.contribution",)),
    (r"resid_post_attn@(?P<i>\d+)", ("layers.{i}.resid_mid",)),
    (r"resid_post_mlp@(?P<i>\d+)", ("layers.{i}.resid_post",)),
)

REFUSED: dict[str, str] = {
    _L + r"hook_attn_in": "the stream, once for each head, which is layers.{i}.resid_pre",
    _L + r"hook_[qkv]_input": "the stream, once for each head, which is layers.{i}.resid_pre",
}
"""Names of values that no point has, and what they are."""
