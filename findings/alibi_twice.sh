#!/usr/bin/env bash
# Falcon's eager attention adds ALiBi twice.
#
# What a user would expect: `attn_implementation="eager"`, which one needs to see patterns, gives the numbers of the default,
# to rounding.
# What happens: a Falcon with `alibi=True` (the RW models) puts ALiBi into the mask that it hands to every layer, for torch's
# kernel; its eager code adds it to the scores once more. Logits are off by some hundredths of the largest, without a word.
# Taking it out of one of the two gives the default's numbers.
# Exits non-zero if that is no longer so.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$work/venv/bin/python" - <<'PY'
import tempfile

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

print("transformers", transformers.__version__, "torch", torch.__version__)
ids = torch.arange(3, 63)[None]
torch.manual_seed(0)
config = AutoConfig.for_model(
    "falcon", vocab_size=67, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_hidden_size=48, alibi=True,
    multi_query=False, parallel_attn=False, bias=True, bos_token_id=0, eos_token_id=1, pad_token_id=2,
)
model = AutoModelForCausalLM.from_config(config)
for parameter in model.parameters():
    torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.5)
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    by = {name: AutoModelForCausalLM.from_pretrained(folder, attn_implementation=name).eval() for name in ("eager", "sdpa")}


def logits(name):
    with torch.no_grad():
        return by[name](ids, attention_mask=torch.ones_like(ids)).logits


def off(a, b):
    return float((a - b).abs().max() / b.abs().max())


apart = off(logits("eager"), logits("sdpa"))
print(f"eager and default are apart by {apart:.3f}")
for block in by["eager"].transformer.h:  # the mask has it already
    block.self_attention.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "alibi": torch.zeros_like(kwargs["alibi"])}), with_kwargs=True
    )
once = off(logits("eager"), logits("sdpa"))
print(f"without the second ALiBi by {once:.1e}")
assert apart > 0.01 and once < 1e-5
PY
