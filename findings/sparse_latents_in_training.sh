#!/usr/bin/env bash
# SAELens's top-k dictionaries with sparse latents go forward and not backward.
#
# What a user would expect: `use_sparse_activations=True`, which a configuration for training offers to save memory, trains what False trains.
# What happens (on a CPU, with torch 2.13): the loss comes out, to rounding that of the dense latents, and its backward raises
# NotImplementedError: of the product of sparse latents and decoder torch wants a view of a sparse tensor, which there is none of.
# Exits non-zero if that is no longer so.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 sae-lens==6.54.12
HF_HUB_OFFLINE=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput

print("sae-lens", version("sae-lens"), "torch", torch.__version__)
rows = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))


def loss(sparse):
    torch.manual_seed(0)
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=8, d_sae=32, k=4, use_sparse_activations=sparse))
    given = TrainStepInput(sae_in=rows, coefficients={}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False)
    return sae.training_forward_pass(given).loss


dense, sparse = loss(False), loss(True)
print(f"loss {dense.item():.6f} of dense latents, {sparse.item():.6f} of sparse ones")
torch.testing.assert_close(dense, sparse)
dense.backward()
try:
    sparse.backward()
except NotImplementedError as error:
    print("backward of sparse ones:", str(error).partition(".")[0])
else:
    raise SystemExit("the backward went through")
PY
