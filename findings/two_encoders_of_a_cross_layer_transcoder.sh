#!/usr/bin/env bash
# llamascopium: a cross-layer transcoder has other latents when its layers are encoded one at a time.
#
# What a user would expect: `encode_single_layer(x_i, i)` is layer i of `encode(x)`, as its documentation says, so that a large
# transcoder can be encoded layer by layer.
# What happens: with `sparsity_include_decoder_norm`, which is the default, `encode` multiplies by the norm of all of a latent's decoders
# before the activation, and divides by it afterwards. `encode_single_layer` multiplies by the norms of its single decoders, a table with a row
# for each layer, and divides by nothing. So one token comes back as one row for each layer, of other values; tokens as many as there are layers
# each get another layer's norms, without a word.
# Exits non-zero if that is no longer so.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 transformer-lens==3.9.0
"$work/venv/bin/pip" install -q --pre llamascopium==2.0.0b34
WANDB_MODE=offline "$work/venv/bin/python" -W ignore - <<'PY'
import torch
from llamascopium.models.clt import CLTConfig, CrossLayerTranscoder

LAYERS, D, F = 2, 4, 8
torch.manual_seed(0)
config = CLTConfig(
    hook_points_in=[f"blocks.{i}.hook_resid_mid" for i in range(LAYERS)], hook_points_out=[f"blocks.{i}.hook_mlp_out" for i in range(LAYERS)],
    d_model=D, expansion_factor=F / D, act_fn="relu", device="cpu", dtype=torch.float32,
)
assert config.sparsity_include_decoder_norm
clt = CrossLayerTranscoder(config)
for parameter in clt.parameters():
    torch.nn.init.normal_(parameter)
x = torch.randn(1, LAYERS, D)
with torch.no_grad():
    together = clt.encode(x)[:, 0]
    alone = clt.encode_single_layer(x[:, 0], 0)
print("layer 0 of encode:        ", list(together.shape), [f"{value:.3f}" for value in together[0].tolist()])
for row in alone.tolist():
    print("of encode_single_layer:   ", list(alone.shape), [f"{value:.3f}" for value in row])
apart = float((alone[0] - together[0]).abs().max())
print(f"one token is {len(together)} row of encode, {len(alone)} of encode_single_layer; apart by {apart:.3f}")
assert len(together) == 1 and len(alone) == LAYERS and apart > 0.1
PY
