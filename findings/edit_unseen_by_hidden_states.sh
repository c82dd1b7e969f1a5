#!/usr/bin/env bash
# transformers 5.23.0 (torch 2.13.0, CPU): output_hidden_states beside a forward hook that edits a layer's output.
#
# One would expect: the hidden states that a model returns are those that it computed with, edited or not, whatever was
# called before.
# What happens: the library records hidden states by hooks of its own, which it installs at the first call that asks for
# them and keeps. Hooks run in the order in which they were installed, so an edit that is registered after such a call is
# not in the hidden states, though the model goes on with it; one that was registered before it is. prepend=True helps.
#
# Seen, layer 0's output set to zero, largest absolute value of hidden_states[1]:
#   hook, then the first such call:     0.0
#   such a call, then the hook:         0.0627  (the value before the edit)
#   such a call, then prepend=True:     0.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PYTHON'
import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig

ids = torch.arange(1, 9)[None]
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, pad_token_id=0)


def zero(module, args, output):
    return torch.zeros_like(output) if torch.is_tensor(output) else (torch.zeros_like(output[0]), *output[1:])


@torch.no_grad()
def shown(asked_before, prepend=False):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**sizes), dtype=torch.float32).eval()
    if asked_before:
        model(ids, output_hidden_states=True)
    model.model.layers[0].register_forward_hook(zero, prepend=prepend)
    entering = []
    model.model.layers[1].register_forward_pre_hook(lambda module, args: entering.append(args[0].abs().max()))
    found = float(model(ids, output_hidden_states=True).hidden_states[1].abs().max())
    assert float(entering[0]) == 0.0  # the edit itself holds in all cases
    return found


print("transformers", transformers.__version__, "torch", torch.__version__)
first, after, prepended = shown(False), shown(True), shown(True, prepend=True)
print(f"hook first {first:.4f}, after a call {after:.4f}, prepended {prepended:.4f}")
assert first == 0.0 and after > 0.01 and prepended == 0.0, "it changed"
PYTHON
