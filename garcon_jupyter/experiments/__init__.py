"""Experiments: what is computed on the server and returned as plain data.

Each runs clean passes and sends only what is drawn, a few numbers for each cell. None runs the probes that you
attached, and none leaves anything in your recordings.

They need no notebook and no widgets: ``lenses.readouts.read_layers(rmodel, text)`` gives arrays to a script. Those that users call by
name are declared in :data:`EXPERIMENTS`: ``experiments.patch(rmodel, …)``, or ``rmodel.experiments.patch(…)``.

Not here: pictures (``widgets``), and how they are filled (``display``).

``result``         what an experiment found: numbers with named axes
``clean_passes``   passes whose recordings are nobody else's business
``target_tokens``  the tokens that a picture is asked to follow
``point_shapes``   what the dimensions of a point's value are
``token_metrics``  how surprising each token of a text was
``attention``      attention of a whole model, a layer or a glance at a time
``attribution``    what each part would restore, by gradients
``reading``        what parts write and heads attend to, without patching
``lenses``         what every layer would predict: logit, tuned and Jacobian lenses
``activation_patching``  activation patching, exact, cell by cell
``patching``       the sweep of a picture that fills
``live_edits``     edits of a model while one types
``neurons``        a unit's values on some texts
``unit_effects``   what latents, heads and neurons do to an answer, one by one
``attribution_graphs``  how tokens and latents add up to each latent and to the logits, edge by edge
``directions``     linear probes, and directions that are added, taken out and read off
``layer_views``    a whole layer: its principal components, and maps of tokens or units
``connectivity``   what a model's parts can tell each other, from its weights alone
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

EXPERIMENTS: dict[str, str] = {
    "composition": "connectivity.composition",
    "connectome": "connectivity.connectome.making",
    "connections": "connectivity.connections",
    "head_circuits": "connectivity.circuits",
    "patch": "activation_patching.patch",
    "path_patch": "activation_patching.path_patch",
    "faithfulness": "activation_patching.faithfulness",
    "attribute": "attribution.nodes",
    "attribute_edges": "attribution.edges",
    "effects": "unit_effects.table",
    "attribution_graph": "attribution_graphs.graph",
    "direct_logit_attribution": "reading.direct_logits",
    "head_scores": "reading.head_scores",
    "linear_probe": "directions.linear_probe",
    "kept_directions": "directions.direction",
    "pca": "layer_views.pca",
    "layout": "layer_views.layout",
    "read_lens": "lenses.read_lens",
    "load_lens": "lenses.load_lens",
    "fit_jacobian_lens": "lenses.jacobian_fit",
    "train_tuned_lens": "lenses.tuned_training",
}
"""Name of an experiment → the module of this room that has a function of that name, whose first argument is a model."""

_OTHERS = {
    "ExperimentResult": "result",
    "load": "result",
    "save_graph": "attribution_graphs.viewer_files",
    "Direction": "directions.direction",
    "attached": "directions.direction",
    "JacobianLens": "lenses.jacobian_lens",
    "TunedLens": "lenses.tuned_lens",
}


def __getattr__(name: str) -> Any:
    """An experiment; its module is imported when it is first asked for."""
    if (module := {**EXPERIMENTS, **_OTHERS}.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted([*EXPERIMENTS, *_OTHERS])
