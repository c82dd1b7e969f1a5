#!/usr/bin/env bash
# The experts of an OLMoE run in float32 and not in float64, and a hook on their activation sees tokens in an order of its own.
#
# What a user would expect: model.double() gives the reference in double precision, as it does for a dense model; and
# rows that a hook on `mlp.experts.act_fn` sees are in the order of tokens, or of experts with tokens in order in each.
# What happens: by default transformers 5.23 multiplies all experts at once by torch's grouped_mm, which takes no float64
# (experts_implementation="eager" does). Before that it sorts the pairs of token and expert by expert, and not stably:
# within an expert the rows are not in token order, so that assigning them in order gives other numbers, of the same shape.
# Exits non-zero if either is no longer so.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$work/venv/bin/python" - <<'PY'
import torch
import transformers
from transformers import OlmoeConfig, OlmoeForCausalLM

print("transformers", transformers.__version__, "torch", torch.__version__)
torch.manual_seed(0)
config = OlmoeConfig(vocab_size=67, hidden_size=32, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4,
                     num_key_value_heads=4, num_experts=4, num_experts_per_tok=2)
model = OlmoeForCausalLM._from_config(config).eval()
mlp = model.model.layers[0].mlp
for parameter in model.parameters():
    if parameter.dim() > 1:
        torch.nn.init.normal_(parameter, std=0.2)
ids = torch.randint(0, 67, (4, 32))
seen = {}
mlp.experts.act_fn.register_forward_hook(lambda m, args, out: seen.update(gate=args[0]))
mlp.experts.register_forward_pre_hook(lambda m, args: seen.update(x=args[0], chosen=args[1]))
with torch.no_grad():
    model(ids)
    print("chosen by default:", model.config._experts_implementation)
    rows = []  # what each expert's gate gives its tokens, in token order
    for expert in range(4):
        tokens = (seen["chosen"] == expert).any(-1).nonzero()[:, 0]
        rows.append(seen["x"][tokens] @ mlp.experts.gate_up_proj[expert].chunk(2)[0].T)
    in_order = torch.cat(rows)
    apart = float((in_order - seen["gate"]).abs().max() / in_order.abs().max())
    same_set = float((in_order.sum(1).sort().values - seen["gate"].sum(1).sort().values).abs().max())
    print(f"rows of the hook against expert by expert in token order: off by {apart:.2g}; as a set, by {same_set:.1g}")
    try:
        model.double()(ids)
        refused = ""
    except RuntimeError as error:
        refused = str(error)
    print("in float64:", refused or "runs")
    model.config._experts_implementation = "eager"
    print("in float64, eager experts:", "finite" if model(ids).logits.isfinite().all() else "not finite")
assert apart > 0.1 and same_set < 1e-3 and "Double" in refused, "the behaviour has changed"
PY
