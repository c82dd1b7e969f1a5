"""What holds between the points and parameters of MLPs and experts: a part of the table of identities."""

from __future__ import annotations

from garcon_jupyter.certificate import mlp_formulas as mlp
from garcon_jupyter.certificate import router_formulas as router
from garcon_jupyter.certificate.formulas import (
    Formula,
    normed,
    projected,
    projected_and_own,
    same,
    times_one_number,
)
from garcon_jupyter.certificate.identity import (
    LAYER,
    Identity,
    contribution_row,
    in_layer,
    norm_rows,
    post_norm_row,
    with_bias,
)


def _and_own(of: str, name: str) -> Formula:
    """A projection that layers share, and the layer's own."""
    own = ("mlp.own_down_proj", f"mlp.{name}_own_up_proj")
    return projected_and_own(f"mlp.{of}", "mlp.in", f"mlp.{name}_proj", *own, needed=True)


MLP: tuple[Identity, ...] = (
    *norm_rows(
        LAYER,
        "mlp.norm",
        "resid_mid",
        "resid_pre",
        instead={"of what attention puts out": "attn.out"},
    ),
    in_layer(
        "mlp.in",
        "what the norm puts out; without one of its own that of attention, or the stream",
        "mlp.norm.out attn.norm.out resid_mid resid_pre",
        {
            "": same("mlp.in", "mlp.norm.out"),
            "attention's norm": same("mlp.in", "attn.norm.out"),
            "no norm": same("mlp.in", "resid_mid"),
        },
        rounding="sum",
    ),
    in_layer(
        "mlp.pre_activation",
        "mlp.in × gate_proj + bias; of an MLP without gate × up_proj",
        "mlp.in",
        {
            "": projected("mlp.pre_activation", "mlp.in", "mlp.gate_proj"),
            "no gate": projected("mlp.pre_activation", "mlp.in", "mlp.up_proj"),
            "times one number": times_one_number(
                projected("mlp.pre_activation", "mlp.in", "mlp.gate_proj")
            ),
            "and the layer's own": _and_own("pre_activation", "gate"),
        },
        f"{with_bias('mlp.gate_proj', 'mlp.up_proj')} mlp.own_down_proj mlp.gate_own_up_proj",
    ),
    in_layer(
        "mlp.pre_linear",
        "mlp.in × up_proj + bias",
        "mlp.in",
        {
            "": projected("mlp.pre_linear", "mlp.in", "mlp.up_proj"),
            "and the layer's own": _and_own("pre_linear", "up"),
        },
        f"{with_bias('mlp.up_proj')} mlp.own_down_proj mlp.up_own_up_proj",
    ),
    in_layer(
        "mlp.post_activation",
        "non-linearity of pre_activation × pre_linear",
        "mlp.pre_activation mlp.pre_linear",
        {
            **{name: mlp.activated(name) for name in mlp.GATED},
            "a smooth function": mlp.activated_smoothly,
            **{f"{name}, cut off": mlp.activated_above(name) for name in mlp.ACTIVATIONS},
        },
    ),
    in_layer(
        "mlp.post_activation_normed",
        "norm of the neurons × gain",
        "mlp.post_activation",
        normed("mlp.post_activation_normed", "mlp.post_activation", "mlp.neuron_norm", False),
        "mlp.neuron_norm.weight",
    ),
    in_layer(
        "mlp.router.logits",
        "mlp.in × router + bias",
        "mlp.in",
        router.routes,
        with_bias("mlp.router"),
    ),
    in_layer(
        "mlp.router.indices",
        "the largest logits; or scores, to which each expert adds a number",
        "mlp.router.logits",
        {
            "": router.chosen,
            "with a bias": router.chosen_with_a_bias(),
            **{f"in {n} groups": router.chosen_with_a_bias(n) for n in (2, 3, 4, 8)},
        },
        rounding="sum",
    ),
    in_layer(
        "mlp.router.weights",
        "softmax or sigmoid of the logits of the chosen × one number",
        "mlp.router.logits mlp.router.indices",
        {
            f"{share}{', added up to one' if one else ''}": router.routed(share, one)
            for one in (True, False)
            for share in ("softmax", "sigmoid")
        }
        | {
            "added up to one, and by a number each": router.routed_by_a_number_each,
            "one after the other": router.routed_one_after_the_other,
        },
        beside="mlp.router.indices",
    ),
    in_layer(
        "mlp.experts.{e}.post_activation",
        "non-linearity of mlp.in × gate_proj × (mlp.in × up_proj), for the tokens routed to it",
        "mlp.in mlp.router.indices",
        {
            **{name: mlp.neurons_of_experts(name) for name in mlp.GATED},
            **{f"{n}, no gate": mlp.neurons_of_experts(n, gate=False) for n in mlp.ACTIVATIONS},
            **{f"{n}, weighed": mlp.neurons_of_experts(n, weighed=True) for n in mlp.GATED},
        },
        with_bias("mlp.experts.{e}.gate_proj", "mlp.experts.{e}.up_proj"),
    ),
    in_layer(
        "mlp.shared.post_activation",
        "non-linearity of mlp.in × gate_proj × (mlp.in × up_proj)",
        "mlp.in",
        {
            **{n: mlp.neurons_of_shared_experts(n) for n in mlp.GATED},
            **{
                f"{n}, no gate": mlp.neurons_of_shared_experts_without_gate(n)
                for n in mlp.ACTIVATIONS
            },
        },
        with_bias("mlp.shared.gate_proj", "mlp.shared.up_proj"),
    ),
    in_layer(
        "mlp.shared.gate",
        "mlp.in × the row of the gate + bias",
        "mlp.in",
        mlp.gates_of_shared_experts,
        with_bias("mlp.shared.gate"),
    ),
    in_layer(
        "mlp.shared.out",
        "neurons × down_proj + bias, × sigmoid of the gate",
        "mlp.shared.post_activation mlp.shared.gate",
        mlp.written_by_shared_experts,
        with_bias("mlp.shared.down_proj"),
    ),
    in_layer(
        "mlp.out",
        "neurons × down_proj + bias; of experts by their weights, and those of all tokens",
        "mlp.post_activation mlp.post_activation_normed mlp.experts.{e}.post_activation "
        "mlp.router.weights mlp.router.indices mlp.shared.out",
        {
            "": mlp.written_by_neurons,
            "experts": mlp.written_by_experts(),
            "experts, weighed before": mlp.written_by_experts(weighed=False),
        },
        with_bias("mlp.down_proj", "mlp.experts.{e}.down_proj"),
    ),
    post_norm_row("mlp", mlp.adds_what_it_puts_out),
    contribution_row("mlp", mlp.adds_what_it_puts_out),
)
