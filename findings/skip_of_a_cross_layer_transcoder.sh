#!/usr/bin/env bash
# circuit-tracer saves a cross-layer transcoder without its skip connection, and reads it back as one that has none.
#
# What a user would expect: `to_safetensors` and `load_clt` give the dictionary that was there, as they do for a transcoder of one layer.
# What happens: `W_skip` is in the module and in its state dict, and in no file. What is read back has `W_skip` None and reconstructs
# something else, without a word. Of a transcoder of one layer the skip is written, and is multiplied from the other side: x W_skipᵀ there,
# x W_skip here. And Gemma Scope 2's cross-layer transcoders of n layers are read as n - 1: the loop runs to the largest index, without it.
# Exits non-zero if that is no longer so.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 transformers==4.57.3 pydantic
"$work/venv/bin/pip" install -q --no-deps circuit-tracer==0.5.0
"$work/venv/bin/python" - <<'PY'
import tempfile
from pathlib import Path

import torch
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder, load_clt, load_gemma_scope_2_clt
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, load_relu_transcoder
from safetensors.torch import save_file

LAYERS, D, F = 3, 4, 8
torch.manual_seed(0)


def redraw(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


with tempfile.TemporaryDirectory() as folder, torch.no_grad():
    cpu = {"device": torch.device("cpu"), "dtype": torch.float32}
    made = redraw(CrossLayerTranscoder(LAYERS, F, D, skip_connection=True, lazy_decoder=False, **cpu))
    made.to_safetensors(folder)
    read = load_clt(folder, lazy_decoder=False, **cpu)
    x = torch.randn(LAYERS, 5, D)
    codes = made.encode(x)
    same = bool(torch.equal(codes, read.encode(x)))
    apart = float((made.decode(codes, x) - read.decode(codes, x)).abs().max())
    print(f"cross-layer: W_skip read back is {read.W_skip}; latents equal: {same}; reconstructions apart by {apart:.2f}")
    assert read.W_skip is None and same and apart > 1

    one = redraw(SingleLayerTranscoder(D, F, torch.relu, 0, skip_connection=True, **cpu))
    one.to_safetensors(f"{folder}/layer_0.safetensors")
    back = load_relu_transcoder(f"{folder}/layer_0.safetensors", 0, device=torch.device("cpu"))
    print("one layer: W_skip read back equal:", bool(torch.equal(back.W_skip, one.W_skip)))
    made.W_skip[0] = one.W_skip
    turned = torch.allclose(one.compute_skip(x[0]), made.compute_skip(0, x[0]))
    print("one matrix, the same skip in both classes:", turned)
    assert torch.equal(back.W_skip, one.W_skip) and not turned

    paths = {}
    for i in range(LAYERS):
        paths[i] = str(Path(folder) / f"gemma_{i}.safetensors")
        shapes = {"w_enc": (D, F), "w_dec": (F, LAYERS, D), "b_enc": (F,), "b_dec": (D,), "threshold": (F,)}
        save_file({key: torch.randn(shape) for key, shape in shapes.items()}, paths[i])
    try:
        read = load_gemma_scope_2_clt(paths, **cpu)
        seen = f"{read.n_layers} layers"
    except RuntimeError as error:
        seen = str(error).strip().splitlines()[-1].strip()
    print(f"Gemma Scope 2, {LAYERS} layers:", seen)
    assert seen != f"{LAYERS} layers"
PY
