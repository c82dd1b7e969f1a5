#!/usr/bin/env bash
# Two nodes of one attribution graph of circuit-tracer have the same id.
#
# What a user would expect: the `node_id` of a graph file, by which links name their ends, is a node's own.
# What happens: a latent is "{layer}_{number}_{position}", and what a transcoder misses at layer l is "0_{l}_{position}": the id that latent
# number l of layer 0 has at that position. A graph with both has two nodes of one id, and nobody can say whose links they are.
# Exits non-zero if that is no longer so.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 transformers==4.57.3 pydantic
"$work/venv/bin/pip" install -q --no-deps circuit-tracer==0.5.0
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

from circuit_tracer.frontend.graph_models import Node

print("circuit-tracer", version("circuit-tracer"))
LAYER, POSITION = 3, 5
latent = Node.feature_node(layer=0, pos=POSITION, feat_idx=LAYER)
missed = Node.error_node(layer=LAYER, pos=POSITION)
print("latent 3 of layer 0:", latent.node_id, " what is missed at layer 3:", missed.node_id)
assert latent.node_id == missed.node_id == "0_3_5"
PY
