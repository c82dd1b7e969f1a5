"""What holds between the points and parameters of mixers that do not attend: a part of the table of identities."""

from __future__ import annotations

from garcon_jupyter.certificate import mixer_formulas as mixer
from garcon_jupyter.certificate.formulas import multiple, projected, same, times_one_number
from garcon_jupyter.certificate.identity import (
    LAYER,
    Identity,
    in_layer,
    norm_rows,
    with_bias,
)
from garcon_jupyter.certificate.latent_formulas import compressed


def _projected(of: str, by: str, *middle: str) -> Identity:
    """A projection of what the mixer reads; some models multiply what they project.

    Args:
        middle: two projections that some models have in its place, of a gate.
    """
    made = projected(f"mixer.{of}", "mixer.in", f"mixer.{by}")
    forms = {"": made, "times one number": times_one_number(made)}
    if middle:
        forms["through a narrow middle"] = mixer.gate_through_a_middle
    says = f"mixer.in × {by} + bias"
    names = with_bias(*(f"mixer.{name}" for name in (by, *middle)))
    return in_layer(f"mixer.{of}", says, "mixer.in", forms, names)


def _written(of: str, *before: str) -> Identity:
    """B or C: of the short convolution, or projected from what that puts out."""
    by, norm = f"mixer.{of}_proj", f"mixer.{of}_norm"
    forms = {
        "": mixer.part_of_convolved(of, *before),
        "projected": projected(f"mixer.{of}", "mixer.conv_out", by),
        "projected, norm": compressed(f"mixer.{of}", "mixer.conv_out", by, norm),
    }
    says = f"channels of conv_out, or conv_out × {of}_proj"
    return in_layer(f"mixer.{of}", says, "mixer.conv_out", forms, f"{by} {by}.bias {norm}.weight")


_READ = "mixer.q_proj mixer.k_proj mixer.v_proj mixer.x_proj mixer.B_proj mixer.C_proj"

MIXER: tuple[Identity, ...] = (
    in_layer(
        "mixer.aside",
        "mlp.out × aside_proj",
        "mlp.out",
        projected("mixer.aside", "mlp.out", "mixer.aside_proj"),
        "mixer.aside_proj",
    ),
    *norm_rows(
        LAYER,
        "mixer.norm",
        "resid_pre",
        instead={"with what is for it alone": "resid_pre+mixer.aside"},
    ),
    in_layer(
        "mixer.in",
        "what the norm puts out; without one of its own that of attention, or the stream",
        "mixer.norm.out attn.norm.out resid_pre",
        {
            "": same("mixer.in", "mixer.norm.out"),
            "attention's norm": same("mixer.in", "attn.norm.out"),
            "no norm": same("mixer.in", "resid_pre"),
        },
        rounding="sum",
    ),
    _projected("in_gate", "in_gate_proj"),
    _projected("gate", "gate_proj", "gate_down_proj", "gate_up_proj"),
    in_layer(
        "mixer.conv_in",
        "mixer.in × the projections of what is convolved, side by side",
        "mixer.in mixer.in_gate",
        {
            "queries, keys, values": mixer.convolution_reads("q", "k", "v"),
            "x, B, C": mixer.convolution_reads("x", "B", "C"),
            "x": mixer.convolution_reads("x"),
            "x, gated": mixer.convolution_reads_gated,
            "x, B, C, each times a number": mixer.convolution_reads("x", "B", "C", numbers=True),
        },
        with_bias(*_READ.split()),
    ),
    in_layer(
        "mixer.conv_out",
        "the last few positions of each channel, weighted; perhaps SiLU",
        "mixer.conv_in",
        {"SiLU": mixer.convolved("SiLU"), "": mixer.convolved("")},
        "mixer.conv.weight mixer.conv.bias",
    ),
    *(
        in_layer(
            f"mixer.{of}",
            "channels of conv_out",
            "mixer.conv_out mixer.in",
            {
                "": mixer.part_of_convolved(of, *before),
                **({} if of == "x" else {"projected, SiLU": mixer.activated(of)}),
            },
            "" if of == "x" else with_bias(f"mixer.{of}_proj"),
        )
        for of, before in (("q", ()), ("k", ("q",)), ("v", ("q", "k")), ("x", ()))
    ),
    _written("B", "x"),
    _written("C", "x", "B"),
    in_layer(
        "mixer.dt",
        "mixer.in × dt_proj; of Mamba conv_out × dt_down_proj × dt_proj",
        "mixer.in mixer.conv_out",
        {
            "": projected("mixer.dt", "mixer.in", "mixer.dt_proj"),
            "through a narrow middle": mixer.steps_through_a_middle,
            "times one number": times_one_number(
                projected("mixer.dt", "mixer.in", "mixer.dt_proj")
            ),
        },
        f"{with_bias('mixer.dt_proj', 'mixer.dt_down_proj')} mixer.dt_norm.weight",
    ),
    in_layer(
        "mixer.beta",
        "sigmoid of mixer.in × beta_proj, times one number",
        "mixer.in",
        mixer.replaced,
        with_bias("mixer.beta_proj"),
    ),
    in_layer(
        "mixer.decay",
        "−exp(A_log) · softplus(mixer.in × decay_proj + dt_bias)",
        "mixer.in",
        mixer.decayed,
        f"{with_bias('mixer.decay_proj')} mixer.A_log mixer.dt_bias",
    ),
    in_layer(
        "mixer.channel_decay",
        "−exp(A_log) · softplus(mixer.in × decay_down_proj × decay_up_proj + dt_bias)",
        "mixer.in",
        mixer.channels_decayed,
        f"{with_bias('mixer.decay_down_proj', 'mixer.decay_up_proj')} mixer.A_log mixer.dt_bias",
    ),
    in_layer(
        "mixer.state_out",
        "what the recurrence reads from its state, a token at a time",
        "mixer.q mixer.k mixer.v mixer.beta mixer.decay mixer.channel_decay mixer.x mixer.dt mixer.B mixer.C",
        {
            "delta rule": mixer.delta_rule,
            "state space": mixer.state_space,
            "linear attention, kept by a number each": mixer.linear_attention,
            "state space, no step shorter than some length": mixer.state_space_of_long_steps,
        },
        "mixer.A_log mixer.dt_bias mixer.D",
    ),
    in_layer(
        "mixer.gated",
        "state_out, perhaps its norm, × activation of the gate; of a short convolution conv_out × gate",
        "mixer.state_out mixer.gate mixer.conv_out",
        dict(mixer.gated_forms()),
        "mixer.out_norm.weight",
    ),
    in_layer(
        "mixer.out",
        "gated × out_proj + bias",
        "mixer.gated",
        projected("mixer.out", "mixer.gated", "mixer.out_proj"),
        with_bias("mixer.out_proj"),
    ),
    in_layer(
        "mixer.contribution",
        "mixer.out, or a multiple",
        "mixer.out",
        multiple("mixer.contribution", "mixer.out"),
    ),
)
