"""What a reader of a model's values should know of them, from its configuration: caps, multipliers, orders of routers."""

from __future__ import annotations

from typing import Any

NOTES = (
    ("attn_logit_softcapping", "layers.{i}.attn.scores", "soft-capped at {}"),
    ("final_logit_softcapping", "logits", "soft-capped at {}"),
    ("logits_scaling", "logits", "divided by {} by the model"),
    ("logit_scale", "logits", "multiplied by {} by the model"),
    ("embedding_multiplier", "embed.out", "the stream begins with {} times this"),
    ("routed_scaling_factor", "layers.{i}.mlp.router.weights", "multiplied by {}"),
)
"""What a configuration says of points: (name of a number, point, what the number means for it)."""

RENORMALISED = {
    True: "renormalised: those of the chosen experts add up to one before any factor",
    False: "not renormalised: those of the chosen experts are what they were among all",
}


def standard_notes(config: Any) -> dict[str, str]:
    """What a reader of values should know, from a transformers configuration by the usual names."""
    found: dict[str, list[str]] = {}
    for name, template, said in NOTES:
        number = getattr(config, name, None)
        if number is not None and number != 1.0:
            found.setdefault(template, []).append(said.format(f"{number:g}"))
    renormalised = getattr(config, "norm_topk_prob", None)
    if renormalised is not None:
        weights = found.setdefault("layers.{i}.mlp.router.weights", [])
        weights.insert(0, RENORMALISED[bool(renormalised)])
    return {template: "; ".join(notes) for template, notes in found.items()}
