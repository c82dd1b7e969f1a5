#!/usr/bin/env bash
# transformers 5.23.0 (torch 2.13.0, CPU): output_attentions of models that mix attention with linear layers.
#
# One would expect: attentions[i] is the pattern of layer i, or None where that layer has none, as the documentation's
# "one for each layer" says.
# What happens: layers without attention are left out, so the tuple is shorter than the model and attentions[0] is the
# first layer that attends: of a Qwen3-Next layer 3, of an LFM2 whatever its configuration says.
#
# Seen: qwen3_next, 4 layers, attention in layer 3: a tuple of 1; lfm2, 4 layers, attention in layer 2: a tuple of 1.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PYTHON'
import torch
import transformers
from transformers import AutoModelForCausalLM, Lfm2Config, Qwen3NextConfig

base = dict(vocab_size=64, hidden_size=32, intermediate_size=32, num_attention_heads=4, num_key_value_heads=2,
            num_hidden_layers=4, pad_token_id=0)
linear = dict(head_dim=8, linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8,
              linear_value_head_dim=8, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16,
              shared_expert_intermediate_size=16)
configs = {
    "qwen3_next": (Qwen3NextConfig(**base, **linear), 3),
    "lfm2": (Lfm2Config(**base, layer_types=["conv", "conv", "full_attention", "conv"]), 2),
}
print("transformers", transformers.__version__, "torch", torch.__version__)
for name, (config, attends) in configs.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    patterns = []
    layer = model.model.layers[attends].self_attn
    layer.register_forward_hook(lambda module, args, output: patterns.append(output[1]))
    with torch.no_grad():
        found = model(torch.arange(1, 8)[None], output_attentions=True, use_cache=False).attentions
    print(f"{name}: {config.num_hidden_layers} layers, attention in layer {attends}, {len(found)} attentions")
    assert len(found) == 1 and torch.equal(found[0], patterns[0]), "it changed"
PYTHON
