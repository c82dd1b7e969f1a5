#!/usr/bin/env bash
# Falcon with ALiBi (falcon-rw-1b's shape) gives other logits by transformers' default attention than by "eager", and
# a Llama with dynamic NTK gives other logits for the same text after a longer text was read.
#
# What a user would expect: attn_implementation changes speed, not numbers (float32 differences of about 1e-6), and a
# forward without a cache depends on its own text only.
# What happens: for torch's kernel Falcon adds the ALiBi bias as a part of the mask and scales only the products, for
# "eager" it scales their sum; logits differ by some per cent of the largest. A dynamic rotary embedding keeps the frequencies of the
# longest text that it has seen until a text shorter than the original context comes.
# Exits non-zero if either is no longer so.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$work/venv/bin/python" - <<'PY'
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

print("transformers", transformers.__version__, "torch", torch.__version__)
ids = torch.arange(3, 15)[None]


def off(a, b):
    return float((a - b).abs().max() / b.abs().max())


def drawn(config, implementation=None):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


falcon = dict(vocab_size=67, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True,
              new_decoder_architecture=False, multi_query=False, parallel_attn=False, bias=True)
with torch.no_grad():
    by_default, eager = (drawn(AutoConfig.for_model("falcon", **falcon), w) for w in (None, "eager"))
    apart = off(by_default(ids).logits, eager(ids).logits)
    print(f"Falcon with ALiBi: {by_default.config._attn_implementation} against eager, logits off by {apart:.2g}")
    llama = dict(vocab_size=67, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
                 intermediate_size=48, max_position_embeddings=8,
                 rope_parameters={"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0})
    model = drawn(AutoConfig.for_model("llama", **llama), "eager")
    before = model(ids, use_cache=False).logits
    model(torch.arange(3, 63)[None], use_cache=False)
    history = off(model(ids, use_cache=False).logits, before)
    print(f"Llama with dynamic NTK: 12 tokens before and after 60 others, logits off by {history:.2g}")
assert apart > 1e-3 and history > 1e-3, "the behaviour has changed"
PY
