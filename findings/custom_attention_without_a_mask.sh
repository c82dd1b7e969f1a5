#!/usr/bin/env bash
# transformers 5.23.0 (torch 2.13.0, CPU): an attention function that is registered by name.
#
# One would expect: a function that does what "sdpa" does gives what "sdpa" gives, whatever the model and the batch.
# What happens: where no mask function is registered under the same name, the function is handed no mask at all, so padding
# and sliding windows are ignored; and what a model hands over beside the usual arguments (attention sinks, in s_aux)
# is lost by every function that takes **kwargs and does not know it. There is no error and no warning in either case.
#
# Seen (largest difference of logits at real tokens, over the largest logit):
#   without a mask function:  full 0.0000, padded 1.06, window 1.15, sinks 0.99
#   with one:                 full 0.0000, padded 0.0000, window 0.0000, sinks 0.99
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PYTHON'
import torch
import transformers
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, GptOssConfig, MistralConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask


def same_as_sdpa(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout)


AttentionInterface.register("unmasked", same_as_sdpa)
AttentionInterface.register("masked", same_as_sdpa)
AttentionMaskInterface.register("masked", sdpa_mask)


def built(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def off(model, name, mask):
    model.set_attn_implementation("eager")
    want = model(ids, attention_mask=mask).logits[mask.bool()]
    model.set_attn_implementation(name)
    got = model(ids, attention_mask=mask).logits[mask.bool()]
    return float((got - want).abs().max() / want.abs().max())


sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, pad_token_id=0)
ids = torch.arange(1, 13)[None].repeat(2, 1) * 5 % 63 + 1
whole = torch.ones_like(ids)
padded = whole.clone()
padded[0, :4] = 0
full, window = (built(MistralConfig(**sizes, sliding_window=n)) for n in (None, 4))
sinks = built(GptOssConfig(**sizes, num_local_experts=2, num_experts_per_tok=1, layer_types=["full_attention"] * 2))
print("transformers", transformers.__version__, "torch", torch.__version__)
seen = {}
for name in ("unmasked", "masked"):
    seen[name] = [off(full, name, whole), off(full, name, padded), off(window, name, whole), off(sinks, name, whole)]
    print(f"{name:9}", *(f"{what} {value:.4f}" for what, value in zip(("full", "padded", "window", "sinks"), seen[name])))
assert seen["unmasked"][0] < 1e-5 and min(seen["unmasked"][1:]) > 0.1, "it changed"
assert max(seen["masked"][:3]) < 1e-5 and seen["masked"][3] > 0.1, "it changed"
PYTHON
