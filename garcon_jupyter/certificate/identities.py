"""What holds between the points and parameters of any model, declared once: the table that a certificate is made by.

An *identity* says what the value of a point is made of. Where architectures differ it has several forms, of which one must
hold; which one is found out on the text that is read, and must go on to hold where a point is edited. A point or parameter
that the table of points gains is given a row here, or a reason in :data:`UNCOVERED`; a family says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from garcon_jupyter.certificate import attention_formulas as attention
from garcon_jupyter.certificate import latent_formulas as latent
from garcon_jupyter.certificate import stream_formulas as stream
from garcon_jupyter.certificate.formulas import (
    Formula,
    clipped,
    embedded,
    multiple,
    normed,
    projected,
    projected_and_own,
    same,
    times_one_number,
)
from garcon_jupyter.certificate.identity import (
    BEGINS,
    LAYER,
    Identity,
    contribution_row,
    in_layer,
    norm_rows,
    normed_row,
    post_norm_row,
    with_bias,
)
from garcon_jupyter.certificate.logits_formulas import capped, unembedded
from garcon_jupyter.certificate.mixer_identities import MIXER
from garcon_jupyter.certificate.mlp_identities import MLP

_LAST = ("mlp.contribution", "per_layer.contribution")
_ADDED = ("attn.contribution", "mixer.contribution", *_LAST)
"""What a block adds to the stream: after resid_mid, and in all."""


def _shared(name: str) -> dict[str, Formula]:
    """Queries, keys or values of a projection that layers share, and of the layer's own."""
    down, up = (f"attn.{name}_own_{way}_proj" for way in ("down", "up"))
    made = projected_and_own(f"attn.{name}", "attn.joint", f"attn.{name}_proj", down, up)
    return {"of the stream beside the embedding": made}


def _own(name: str) -> str:
    return f"attn.{name}_own_down_proj attn.{name}_own_up_proj"


_FIRST_NORM = norm_rows(LAYER, "attn.norm", "resid_pre")

_ATTENTION = (
    replace(
        _FIRST_NORM[0],
        reads=(*_FIRST_NORM[0].reads, "embed.out"),
        forms={**_FIRST_NORM[0].forms, "beside the embedding": stream.joint_denominator},
    ),
    *_FIRST_NORM[1:],
    in_layer(
        "attn.joint",
        "the stream and the embedding side by side / scale × gain",
        "resid_pre attn.norm.scale",
        stream.joint,
        "attn.joint_norm.weight",
    ),
    in_layer(
        "attn.in",
        "what the norm puts out; without a norm the stream",
        "attn.norm.out resid_pre",
        {
            "": same("attn.in", "attn.norm.out"),
            "no norm": same("attn.in", "resid_pre"),
            "times one number": multiple("attn.in", "attn.norm.out"),
        },
        rounding="sum",
    ),
    *(
        in_layer(
            f"attn.{x}_latent",
            f"norm of attn.in × {x}_a_proj",
            "attn.in",
            latent.compressed(
                f"attn.{x}_latent", "attn.in", f"attn.{x}_a_proj", f"attn.{x}_a_norm"
            ),
            f"{with_bias(f'attn.{x}_a_proj')} attn.{x}_a_norm.weight attn.{x}_a_norm.bias",
        )
        for x in ("q", "kv")
    ),
    in_layer(
        "attn.k_nope",
        "kv_latent × k_b_proj",
        "attn.kv_latent",
        projected("attn.k_nope", "attn.kv_latent", "attn.k_b_proj"),
        with_bias("attn.k_b_proj"),
    ),
    in_layer(
        "attn.k_rope",
        "attn.in × k_rope_proj",
        "attn.in",
        projected("attn.k_rope", "attn.in", "attn.k_rope_proj"),
        with_bias("attn.k_rope_proj"),
    ),
    in_layer(
        "attn.indices",
        "the keys that are not hidden",
        "attn.scores",
        latent.keys_chosen,
    ),
    in_layer(
        "attn.q",
        "attn.in × q_proj + bias; of latent attention q_latent × q_b_proj",
        "attn.in attn.q_latent attn.joint",
        {
            "": projected("attn.q", "attn.in", "attn.q_proj"),
            "of a latent": projected("attn.q", "attn.q_latent", "attn.q_b_proj"),
            "clipped": clipped("attn.q", "attn.in", "attn.q_proj"),
            **_shared("q"),
        },
        f"{with_bias('attn.q_proj', 'attn.q_b_proj')} {_own('q')}",
    ),
    in_layer(
        "attn.k",
        "attn.in × k_proj + bias; of latent attention k_nope beside k_rope",
        "attn.in attn.joint attn.k_nope attn.k_rope",
        {
            "": projected("attn.k", "attn.in", "attn.k_proj"),
            "clipped": clipped("attn.k", "attn.in", "attn.k_proj"),
            "two parts": latent.two_parts_unturned,
            **_shared("k"),
        },
        f"{with_bias('attn.k_proj')} {_own('k')}",
    ),
    in_layer(
        "attn.v",
        "attn.in × v_proj + bias; of latent attention kv_latent × v_b_proj",
        "attn.in attn.kv_latent attn.joint",
        {
            "": projected("attn.v", "attn.in", "attn.v_proj"),
            "of a latent": projected("attn.v", "attn.kv_latent", "attn.v_b_proj"),
            "clipped": clipped("attn.v", "attn.in", "attn.v_proj"),
            "norm": attention.normed_values("attn.v_proj"),
            "norm of the keys": attention.normed_values("attn.k_proj"),
            **_shared("v"),
        },
        f"{with_bias('attn.v_proj', 'attn.v_b_proj')} {_own('v')}",
    ),
    in_layer(
        "attn.gate",
        "attn.in × gate_proj + bias",
        "attn.in",
        projected("attn.gate", "attn.in", "attn.gate_proj"),
        with_bias("attn.gate_proj"),
    ),
    normed_row("q"),
    normed_row("k"),
    *(
        in_layer(
            f"attn.{x}_rot",
            "turned: the norm of each head stays, and token 0",
            f"attn.{x}_normed attn.{x}{' attn.k_nope attn.k_rope' if x == 'k' else ''}",
            {
                "": attention.turned(f"attn.{x}_rot", f"attn.{x}_normed", f"attn.{x}"),
                "before the norm": attention.turned(f"attn.{x}_rot", f"attn.{x}"),
                "and a norm": attention.turned(f"attn.{x}_rot", f"attn.{x}", unit=True),
                **({"two parts": latent.two_parts} if x == "k" else {}),
            },
        )
        for x in "qk"
    ),
    in_layer(
        "attn.scores",
        "q·k of what enters attention × one number, soft-capped",
        "attn.q_rot attn.k_rot attn.q_normed attn.k_normed attn.q attn.k",
        {
            f"{words}{also}": attention.scored(f"attn.q{after}", f"attn.k{after}", capped)
            for also, capped in (("", False), (", soft-capped", True))
            for words, after in (("after rotary", "_rot"), ("normed", "_normed"), ("", ""))
        }
        | {
            "and a number by distance": attention.scored_by_distance,
            "of a token with itself": attention.scored_before_positions,
        },
    ),
    in_layer(
        "attn.pattern",
        "softmax of scores, nothing of the future",
        "attn.scores",
        {"": attention.pattern, "beside a sink": attention.pattern_beside_a_sink},
    ),
    in_layer("attn.z", "pattern × values, repeated", "attn.pattern attn.v", attention.mixed),
    in_layer(
        "attn.z_normed",
        "norm of z of all heads × gain",
        "attn.z",
        normed("attn.z_normed", "attn.z", "attn.z_norm", False, together=True),
        "attn.z_norm.weight",
    ),
    in_layer(
        "attn.head_out",
        "z × o_proj of the head; z after its gate or norm",
        "attn.z attn.gate attn.z_normed",
        attention.written_by_head,
        "attn.o_proj",
    ),
    in_layer(
        "attn.out",
        "sum of head_out + bias",
        "attn.head_out attn.z attn.gate attn.z_normed",
        {"": attention.heads_added_up, "z × o_proj": attention.written},
        with_bias("attn.o_proj"),
    ),
    post_norm_row("attn"),
    contribution_row("attn"),
)

_STREAM = (
    Identity(
        "embed.out",
        "rows of the embedding × one number",
        (),
        {"": embedded("embed.out", "embed.weight")},
        ("embed.weight",),
    ),
    Identity(
        "pos_embed.out",
        "rows of the position embedding",
        (),
        {"": embedded("pos_embed.out", "pos_embed.weight", positions=True)},
        ("pos_embed.weight",),
    ),
    in_layer(
        "altup.streams_pre",
        "streams_post of the layer before; the first of the first layer's is the embedding × one number",
        "altup.streams_post",
        stream.streams_go_on,
        rounding="sum",
    ),
    Identity(
        "layers.{i}.resid_pre",
        "resid_post of the layer before; at first the embedding × one number, and positions, or its norm",
        ("layers.{i}.resid_post", "embed.out", "pos_embed.out"),
        {
            "": stream.goes_on,
            "the embedding": stream.begins,
            BEGINS: stream.begins_with_a_norm(centre=True),
            f"{BEGINS}, RMS": stream.begins_with_a_norm(centre=False),
        },
        ("embed.norm.weight", "embed.norm.bias"),
        "sum",
    ),
    in_layer(
        "resid_mid",
        "resid_pre + contributions of attention and mixers",
        "resid_pre attn.contribution mixer.contribution laurel.contribution attn.norm.out mixer.norm.out",
        {
            "to the norm, times one number": stream.added_to_a_norm(
                "resid_mid", ("attn", "mixer"), "attn.contribution", "mixer.contribution"
            ),
            "": stream.added_up(
                "resid_mid", "resid_pre", "attn.contribution", "mixer.contribution"
            ),
            "with a low-rank path, by √2": stream.added_up(
                *("resid_mid", "resid_pre", "attn.contribution", "laurel.contribution"),
                divisor=2**0.5,
            ),
        },
        rounding="sum",
    ),
    in_layer(
        "resid_post",
        "resid_pre + contributions, perhaps times one number",
        f"resid_mid resid_pre {' '.join(_ADDED)} mlp.norm.out",
        {
            "to the norm, times one number": stream.added_to_a_norm(
                "resid_post", ("mlp",), "mlp.contribution"
            ),
            "": stream.added_up("resid_post", "resid_mid", *_LAST),
            "side by side": stream.added_up("resid_post", "resid_pre", *_ADDED),
            "times one number": times_one_number(
                stream.added_up("resid_post", "resid_mid", *_LAST)
            ),
        },
        rounding="sum",
    ),
)

_PER_LAYER = (
    in_layer(
        "per_layer.gate",
        "(resid_mid + mlp.contribution) × gate_proj",
        "resid_mid mlp.contribution",
        stream.gated_by_the_stream,
        with_bias("per_layer.gate_proj"),
    ),
    in_layer(
        "per_layer.contribution",
        "norm of gated × out_proj",
        "per_layer.gated",
        latent.compressed(
            "per_layer.contribution", "per_layer.gated", "per_layer.out_proj", "per_layer.post_norm"
        ),
        f"{with_bias('per_layer.out_proj')} per_layer.post_norm.weight per_layer.post_norm.bias",
    ),
)

_END = (
    *norm_rows("", "final_norm", "last:resid_post"),
    Identity(
        "logits",
        "final_norm.out × unembed + bias, times one number, soft-capped",
        ("final_norm.out",),
        {"": unembedded, "soft-capped": capped},
        ("unembed.weight", "unembed.bias"),
    ),
)

IDENTITIES: tuple[Identity, ...] = (*(*_STREAM, *_ATTENTION, *MIXER, *MLP, *_PER_LAYER, *_END),)

_STREAMS = "AltUp's predictions and corrections have parameters without names"

UNCOVERED: Mapping[str, str] = {
    "layers.{i}.laurel.contribution": "the low-rank path has parameters without names",
    "layers.{i}.altup.streams_post": _STREAMS,
    "layers.{i}.per_layer.gate": _STREAMS,
    "layers.{i}.per_layer.gate_proj": _STREAMS,
    "layers.{i}.per_layer.gated": "the embeddings of tokens for each layer have no name",
    "layers.{i}.resid_pre": _STREAMS,
    "final_norm.scale": "what it reads is the mean of several streams, which has no name",
    "layers.{i}.mlp.router": "it reads the stream through a norm that has no name",
    "layers.{i}.mlp.experts.{e}.gate_proj": "experts beside an MLP read a norm that has no name",
    "layers.{i}.mlp.experts.{e}.up_proj": "experts beside an MLP read a norm that has no name",
    **dict.fromkeys(
        ("layers.{i}.mlp.post_norm.scale", "layers.{i}.mlp.post_norm.weight"),
        "norms without names stand between experts and what is added",
    ),
}
"""Templates of points and parameters that no identity is about, and why. They are held to what every point is: its shape, that
an edit reaches what comes after it, and its gradient."""


def identity_of(template: str) -> Identity | None:
    """The identity that says what a point is made of."""
    return _BY_POINT.get(template)


_BY_POINT = {identity.of: identity for identity in IDENTITIES}
