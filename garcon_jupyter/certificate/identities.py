"""What holds between the points and parameters of any model, declared once: the table that a certificate is made by.

An *identity* says what the value of a point is made of. Where architectures differ it has several forms, of which one must
hold; which one is found out on the text that is read, and must go on to hold where a point is edited. A point or parameter
that the table of points gains is given a row here, or a reason in :data:`UNCOVERED`; a family says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from garcon_jupyter.certificate import attention_formulas as attention
from garcon_jupyter.certificate import mlp_formulas as mlp
from garcon_jupyter.certificate.formulas import (
    Formula,
    denominator,
    embedded,
    gained,
    multiple,
    normalized,
    normed,
    projected,
    same,
    total,
)
from garcon_jupyter.certificate.logits_formulas import capped, unembedded
from garcon_jupyter.certificate.stream_formulas import begins, begins_with_a_norm, goes_on

LAYER = "layers.{i}."


@dataclass(frozen=True)
class Identity:
    """What one point's value is made of.

    Attributes:
        of: template of the point.
        says: what holds, in words.
        reads: templates of the points that it is made of, of those that a model has.
        by: templates of the parameters.
        forms: formulas by name, of which one must hold; where there is one, its name is "".
        rounding: what error is allowed: see :func:`garcon_jupyter.certificate.closeness.tolerance`.
        beside: of what it reads, what comes to be together with the point: an edit there does not reach it.
    """

    of: str
    says: str
    reads: tuple[str, ...]
    forms: Mapping[str, Formula]
    by: tuple[str, ...] = ()
    rounding: str = "product"
    beside: tuple[str, ...] = ()

    @property
    def strict_first(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Its forms: those that have no numbers to be fitted but one, and those that are tried where none of these holds."""
        loose = tuple(form for form in self.forms if form.endswith(FITTED))
        return tuple(form for form in self.forms if form not in loose), loose

    def rounding_of(self, form: str) -> str:
        """The rounding of one of its forms."""
        return "product" if form == BEGINS else self.rounding


FITTED = ("soft-capped", "a smooth function")
"""How forms end that fit more to the values than one number."""

BEGINS = "a norm of the embedding"
"""The form in which a stream begins that is no sum of others."""


def _layer(
    of: str,
    says: str,
    reads: str,
    forms: Mapping[str, Formula] | Formula,
    by: str = "",
    rounding: str = "product",
    beside: str = "",
) -> Identity:
    """An identity inside a layer; points and parameters are named without their beginning, with spaces between."""

    def full(names: str) -> tuple[str, ...]:
        return tuple(LAYER + name for name in names.split())

    given = forms if isinstance(forms, Mapping) else {"": forms}
    return Identity(LAYER + of, says, full(reads), given, full(by), rounding, full(beside))


def _with_bias(*names: str) -> str:
    return " ".join(f"{name} {name}.bias" for name in names)


_BOTH = {"RMS": False, "centred": True}
"""Whether a norm takes the mean away first."""


def _norm(prefix: str, norm: str, *sources: str) -> tuple[Identity, ...]:
    """The three points of a norm; the first of `sources` that a model has is what it reads."""
    read = tuple(prefix + source.removeprefix("last:") for source in sources)
    if prefix == "":
        read = tuple(LAYER + source.removeprefix("last:") for source in sources)
    name = prefix + norm
    by = (f"{name}.weight", f"{name}.bias")
    return (
        Identity(
            f"{name}.scale",
            "√(mean square + ε) of what the norm reads",
            read,
            {word: denominator(norm, *sources, centre=on) for word, on in _BOTH.items()},
        ),
        Identity(
            f"{name}.normalized",
            "what the norm reads / scale",
            (*read, f"{name}.scale"),
            {word: normalized(norm, *sources, centre=on) for word, on in _BOTH.items()},
        ),
        Identity(
            f"{name}.out",
            "normalized × gain + bias",
            (f"{name}.normalized",),
            {"": gained(norm)},
            by,
        ),
    )


def _normed(letter: str) -> Identity:
    """Queries or keys after a norm of their own."""
    of, by = f"attn.{letter}_normed", f"attn.{letter}_norm"
    forms = {
        f"{word}, {which}{after}": normed(of, source, by, centre, together)
        for after, source in (("", f"attn.{letter}"), (", after rotary", f"attn.{letter}_rot"))
        for which, together in (("each head", False), ("all heads", True))
        for word, centre in _BOTH.items()
    }
    says = f"norm of attn.{letter} × gain"
    return _layer(of, says, f"attn.{letter} attn.{letter}_rot", forms, f"{by}.weight {by}.bias")


def _contribution(half: str) -> Identity:
    """What is added to the stream: the output itself, times a number, or after a norm."""
    of, out, by = f"{half}.contribution", f"{half}.out", f"{half}.post_norm"
    forms = {
        **{f"norm, {word}": normed(of, out, by, centre) for word, centre in _BOTH.items()},
        "times one number": multiple(of, out),
    }
    says = f"{out}, or its norm, or a multiple"
    return _layer(of, says, out, forms, f"{by}.weight {by}.bias")


_ATTENTION = (
    *_norm(LAYER, "attn.norm", "resid_pre"),
    _layer(
        "attn.in",
        "what the norm puts out; without a norm the stream",
        "attn.norm.out resid_pre",
        {"": same("attn.in", "attn.norm.out"), "no norm": same("attn.in", "resid_pre")},
        rounding="sum",
    ),
    *(
        _layer(
            f"attn.{x}",
            f"attn.in × {x}_proj + bias",
            "attn.in",
            projected(f"attn.{x}", "attn.in", f"attn.{x}_proj"),
            _with_bias(f"attn.{x}_proj"),
        )
        for x in "qkv"
    ),
    _normed("q"),
    _normed("k"),
    *(
        _layer(
            f"attn.{x}_rot",
            "turned: the norm of each head stays, and token 0",
            f"attn.{x}_normed attn.{x}",
            {
                "": attention.turned(f"attn.{x}_rot", f"attn.{x}_normed", f"attn.{x}"),
                "before the norm": attention.turned(f"attn.{x}_rot", f"attn.{x}"),
            },
        )
        for x in "qk"
    ),
    _layer(
        "attn.scores",
        "q·k of what enters attention × one number, soft-capped",
        "attn.q_rot attn.k_rot attn.q_normed attn.k_normed attn.q attn.k",
        {
            f"{words}{also}": attention.scored(f"attn.q{after}", f"attn.k{after}", capped)
            for also, capped in (("", False), (", soft-capped", True))
            for words, after in (("after rotary", "_rot"), ("normed", "_normed"), ("", ""))
        },
    ),
    _layer(
        "attn.pattern",
        "softmax of scores, nothing of the future",
        "attn.scores",
        {"": attention.pattern, "beside a sink": attention.pattern_beside_a_sink},
    ),
    _layer("attn.z", "pattern × values, repeated", "attn.pattern attn.v", attention.mixed),
    _layer(
        "attn.head_out",
        "z × o_proj of the head",
        "attn.z",
        attention.written_by_head,
        "attn.o_proj",
    ),
    _layer(
        "attn.out",
        "sum of head_out + bias",
        "attn.head_out attn.z",
        {"": attention.heads_added_up, "z × o_proj": attention.written},
        _with_bias("attn.o_proj"),
    ),
    _contribution("attn"),
)

_MLP = (
    *_norm(LAYER, "mlp.norm", "resid_mid", "resid_pre"),
    _layer(
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
    _layer(
        "mlp.pre_activation",
        "mlp.in × gate_proj + bias; of an MLP without gate × up_proj",
        "mlp.in",
        {
            "": projected("mlp.pre_activation", "mlp.in", "mlp.gate_proj"),
            "no gate": projected("mlp.pre_activation", "mlp.in", "mlp.up_proj"),
        },
        _with_bias("mlp.gate_proj", "mlp.up_proj"),
    ),
    _layer(
        "mlp.pre_linear",
        "mlp.in × up_proj + bias",
        "mlp.in",
        projected("mlp.pre_linear", "mlp.in", "mlp.up_proj"),
        _with_bias("mlp.up_proj"),
    ),
    _layer(
        "mlp.post_activation",
        "non-linearity of pre_activation × pre_linear",
        "mlp.pre_activation mlp.pre_linear",
        {
            **{name: mlp.activated(name) for name in mlp.GATED},
            "a smooth function": mlp.activated_smoothly,
        },
    ),
    _layer(
        "mlp.router.logits",
        "mlp.in × router + bias",
        "mlp.in",
        projected("mlp.router.logits", "mlp.in", "mlp.router"),
        _with_bias("mlp.router"),
    ),
    _layer(
        "mlp.router.indices", "the largest logits", "mlp.router.logits", mlp.chosen, rounding="sum"
    ),
    _layer(
        "mlp.router.weights",
        "softmax or sigmoid of the logits of the chosen × one number",
        "mlp.router.logits mlp.router.indices",
        {
            f"{share}{', added up to one' if one else ''}": mlp.routed(share, one)
            for one in (True, False)
            for share in ("softmax", "sigmoid")
        },
        beside="mlp.router.indices",
    ),
    _layer(
        "mlp.experts.{e}.post_activation",
        "non-linearity of mlp.in × gate_proj × (mlp.in × up_proj), for the tokens routed to it",
        "mlp.in mlp.router.indices",
        {name: mlp.neurons_of_experts(name) for name in mlp.GATED},
        _with_bias("mlp.experts.{e}.gate_proj", "mlp.experts.{e}.up_proj"),
    ),
    _layer(
        "mlp.out",
        "neurons × down_proj + bias; of experts by their weights",
        "mlp.post_activation mlp.experts.{e}.post_activation mlp.router.weights mlp.router.indices",
        {"": mlp.written_by_neurons, "experts": mlp.written_by_experts},
        _with_bias("mlp.down_proj", "mlp.experts.{e}.down_proj"),
    ),
    _contribution("mlp"),
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
    Identity(
        "layers.{i}.resid_pre",
        "resid_post of the layer before; at first the embedding × one number, and positions, or its norm",
        ("layers.{i}.resid_post", "embed.out", "pos_embed.out"),
        {"": goes_on, "the embedding": begins, BEGINS: begins_with_a_norm},
        ("embed.norm.weight", "embed.norm.bias"),
        "sum",
    ),
    _layer(
        "resid_mid",
        "resid_pre + attn.contribution",
        "resid_pre attn.contribution",
        total("resid_mid", "resid_pre", "attn.contribution"),
        rounding="sum",
    ),
    _layer(
        "resid_post",
        "resid_pre + attn.contribution + mlp.contribution",
        "resid_mid resid_pre attn.contribution mlp.contribution",
        {
            "": total("resid_post", "resid_mid", "mlp.contribution"),
            "side by side": total(
                "resid_post", "resid_pre", "attn.contribution", "mlp.contribution"
            ),
        },
        rounding="sum",
    ),
)

_END = (
    *_norm("", "final_norm", "last:resid_post"),
    Identity(
        "logits",
        "final_norm.out × unembed + bias, times one number, soft-capped",
        ("final_norm.out",),
        {"": unembedded, "soft-capped": capped},
        ("unembed.weight", "unembed.bias"),
    ),
)

IDENTITIES: tuple[Identity, ...] = (*_STREAM, *_ATTENTION, *_MLP, *_END)

UNCOVERED: Mapping[str, str] = {}
"""Templates of points and parameters that no identity is about, and why. They are held to what every point is: its shape, that
an edit reaches what comes after it, and its gradient."""


def identity_of(template: str) -> Identity | None:
    """The identity that says what a point is made of."""
    return _BY_POINT.get(template)


_BY_POINT = {identity.of: identity for identity in IDENTITIES}
