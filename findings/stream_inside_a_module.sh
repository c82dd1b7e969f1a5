#!/usr/bin/env bash
# What a block's modules put out is not what they add: BLOOM's contain the residual stream, and a norm of one name stands in
# three places.
#
# What a user would expect: zeroing the output of `mlp` takes away what the MLP adds; and `post_attention_layernorm`, which
# Llama has before its MLP, is the norm before the MLP wherever that name stands.
# What happens: BLOOM's `mlp` and `self_attention` add the stream inside, so that zeroing either wipes what all layers before
# wrote. In OLMo 2 the norm of that name normalises what attention adds. GLM-4's is before the MLP again, though a norm of what
# attention adds is there as well, under the name `post_self_attn_layernorm`.
# Exits non-zero if that is no longer so.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$work/venv/bin/python" - <<'PY'
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

print("transformers", transformers.__version__, "torch", torch.__version__)
ids = torch.arange(3, 12)[None]
COMMON = dict(vocab_size=67, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
              intermediate_size=48, bos_token_id=0, eos_token_id=1, pad_token_id=2)


def values(kind, blocks, **more):
    """What goes in and out of the modules of the second block."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**COMMON, **more})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    found = {}

    def hook(name):
        def keep(module, args, kwargs, out):
            given = [*args, *kwargs.values()]
            found[name] = (given[0], out if isinstance(out, torch.Tensor) else out[0])
        return keep

    block = model.get_submodule(blocks)[1]
    block.register_forward_hook(hook("block"), with_kwargs=True)
    for name, module in block.named_modules():
        if name:
            module.register_forward_hook(hook(name), with_kwargs=True)
    with torch.no_grad():
        model(ids)
    return found


def off(a, b):
    return float((a - b).abs().max() / b.abs().max())


bloom = values("bloom", "transformer.h", n_layer=2, n_head=4)
stream = bloom["block"][0]
inside = off(bloom["self_attention"][1], stream + bloom["self_attention.dense"][1])
middle = bloom["self_attention"][1]
whole = off(bloom["mlp"][1], middle + bloom["mlp.dense_4h_to_h"][1])
same = off(bloom["mlp"][1], bloom["block"][1])
print(f"BLOOM: attention's output is stream + projection, off by {inside:.1g}; the MLP's is the block's, off by {same:.1g}")

reads = {}
for kind in ("llama", "olmo2", "glm4"):
    found = values(kind, "model.layers", **({"pad_token_id": 2, "head_dim": 8} if kind == "glm4" else {}))
    norm = found["post_attention_layernorm"]
    before_mlp = found["mlp"][0].data_ptr() == norm[1].data_ptr()
    of_attention = found["self_attn.o_proj"][1].data_ptr() == norm[0].data_ptr()
    reads[kind] = "before the MLP" if before_mlp else "of what attention adds" if of_attention else "neither"
    print(f"{kind}: post_attention_layernorm is the norm {reads[kind]}; the block's norms are",
          ", ".join(name for name in found if name.endswith("layernorm")))
assert inside < 1e-5 and whole < 1e-5 and same < 1e-6, "the behaviour of BLOOM has changed"
assert reads == {"llama": "before the MLP", "olmo2": "of what attention adds", "glm4": "before the MLP"}, reads
PY
