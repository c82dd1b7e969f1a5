"""A graph in the JSON that the viewers of circuit-tracer and Neuronpedia read.

Fields and ids are those of circuit-tracer's own files (schema version 1): a latent is ``LAYER_LATENT_POSITION``, an error
``LAYER_-1_POSITION``, a token ``E_ID_POSITION``, a logit ``LAYERS+1_ID_POSITION``; a latent's number over all layers is Cantor's
pairing of layer and latent.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.result import ExperimentResult


def save_graph(
    found: ExperimentResult,
    path: str | os.PathLike[str],
    slug: str = "",
    scan: str = "",
) -> Path:
    """Write an attribution graph as JSON for circuit-tracer's viewer and Neuronpedia's.

    Args:
        found: of ``experiments.attribution_graph``.
        path: of the file.
        slug: what the graph is called in addresses; by default the file's name.
        scan: the viewer's name of model and transcoders, by which it looks up what it knows of latents; by default the model's.

    Raises:
        BadRequest: it is another experiment's result.
    """
    if found.experiment != "attribution_graph":
        raise BadRequest(
            f"This is a result of {found.experiment}, and no graph.",
            "Give what experiments.attribution_graph found.",
        )
    target = Path(path)
    made = as_viewers_read(found, slug or target.stem, scan or str(found.facts["model"]))
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    beside.write_text(json.dumps(made, ensure_ascii=False, indent=1), encoding="utf-8")
    beside.replace(target)
    return target


def as_viewers_read(found: ExperimentResult, slug: str, scan: str) -> dict[str, Any]:
    """The same as plain data."""
    facts = found.facts
    made = {name: _node(node, facts["layers"]) for name, node in facts["nodes"].items()}
    likeliest = next(name for name, node in facts["nodes"].items() if node["kind"] == "logit")
    made[likeliest]["is_target_logit"] = True
    links = [
        {"source": made[str(s)]["node_id"], "target": made[str(t)]["node_id"], "weight": float(w)}
        for t, row in zip(found.axes["target"], found.values.tolist(), strict=True)
        for s, w in zip(found.axes["source"], row, strict=True)
        if w == w
    ]
    return {
        "metadata": {
            "slug": slug,
            "scan": scan,
            "transcoder_list": list(facts["dictionaries"]),
            "prompt_tokens": list(facts["tokens"]),
            "prompt": "".join(facts["tokens"]),
            "node_threshold": facts["node_share"],
            "schema_version": 1,
        },
        "qParams": {
            "pinnedIds": [],
            "supernodes": [],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": list(made.values()),
        "links": links,
    }


def _node(node: dict[str, Any], layers: int) -> dict[str, Any]:
    """A node as viewers read it."""
    kind, layer, position = node["kind"], node["layer"], node["position"]
    made = {
        "ctx_idx": position,
        "token_prob": 0.0,
        "is_target_logit": False,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "clerp": "",
        "influence": node["share"],
        "activation": None,
    }
    if kind == "latent":
        latent = node["latent"]
        both = layer + latent
        ids = {
            "node_id": f"{layer}_{latent}_{position}",
            "jsNodeId": f"{layer}_{latent}-0",
            "feature": both * (both + 1) // 2 + latent,
            "layer": str(layer),
            "feature_type": "cross layer transcoder",
            "activation": node["activation"],
        }
    elif kind == "error":
        ids = {
            "node_id": f"{layer}_-1_{position}",
            "jsNodeId": f"{layer}_-1-{position}",
            "feature": -1,
            "layer": str(layer),
            "feature_type": "mlp reconstruction error",
        }
    elif kind == "token":
        token = node["token"]
        ids = {
            "node_id": f"E_{token}_{position}",
            "jsNodeId": f"E_{token}-{position}",
            "feature": position,
            "layer": "E",
            "feature_type": "embedding",
        }
    else:
        token, chance = node["token"], node["probability"]
        ids = {
            "node_id": f"{layers + 1}_{token}_{position}",
            "jsNodeId": f"L_{token}-{position}",
            "feature": token,
            "layer": str(layers + 1),
            "feature_type": "logit",
            "token_prob": chance,
            "clerp": f'Output "{node["word"]}" (p={chance:.3f})',
            "influence": None,
        }
    return made | ids
