"""Every probe point and parameter, declared once.

A *probe point* is a named place in the forward pass where a tensor can be read or replaced. This
table is the only declaration of them: the resolver, the documentation, tab completion, shapes,
sharding and the tests are generated from it.

Letters of a shape: b batch, p position, D d_model, H query heads, K key/value heads, d d_head,
M d_mlp, E experts, k experts per token, V vocabulary, n tokens routed to one expert; ``1`` is one.

Beside the table there is one escape hatch, ``module:{dotted.path}.input`` / ``.output``, which
names any :class:`torch.nn.Module` of any model (:mod:`garcon_jupyter.points.names`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class PointSpec:
    """One row of the table.

    Attributes:
        template: the address with its holes ``{i}`` (layer) and ``{e}`` (expert).
        dims: letters of the shape, in order.
        split: the letter along which tensor parallelism shards the value; "" where replicated.
        what: what the tensor is, one phrase.
        lazy: computed only when probed.
        differentiable: whether gradients exist (indices have none).
        absent: why an architecture has no such point whose family says nothing of it; "" where each family says it,
            so that none is forgotten.
    """

    template: str
    dims: tuple[str, ...]
    split: str
    what: str
    lazy: bool = False
    differentiable: bool = True
    absent: str = ""


def _rows(*rows: tuple[str, str, str, str], absent: str = "") -> list[PointSpec]:
    return [
        PointSpec(t, tuple(dims.split(",")), split, what, absent=absent)
        for t, dims, split, what in rows
    ]


_NORM = (
    ("scale", "b,p,1", "denominator of the norm"),
    ("normalized", "b,p,D", "value before the gain"),
    ("out", "b,p,D", "value after the gain"),
)


def _norm(prefix: str, name: str) -> list[PointSpec]:
    return _rows(*((f"{prefix}.{p}", d, "", f"{name}: {what}") for p, d, what in _NORM))


POINTS: tuple[PointSpec, ...] = (
    *_rows(
        ("embed.out", "b,p,D", "", "token embedding"),
        ("pos_embed.out", "b,p,D", "", "learned position embedding"),
        ("layers.{i}.resid_pre", "b,p,D", "", "residual stream entering the block"),
    ),
    *_norm("layers.{i}.attn.norm", "norm before attention"),
    *_rows(
        ("layers.{i}.attn.in", "b,p,D", "", "what q, k and v are projected from"),
        ("layers.{i}.attn.q", "b,p,H,d", "H", "queries, before rotary and q-norm"),
        ("layers.{i}.attn.k", "b,p,K,d", "K", "keys, before rotary, k-norm and repetition"),
        ("layers.{i}.attn.v", "b,p,K,d", "K", "values, before repetition to H heads"),
        ("layers.{i}.attn.q_normed", "b,p,H,d", "H", "queries after q-norm"),
        ("layers.{i}.attn.k_normed", "b,p,K,d", "K", "keys after k-norm"),
        ("layers.{i}.attn.q_rot", "b,p,H,d", "H", "queries after rotary"),
        ("layers.{i}.attn.k_rot", "b,p,K,d", "K", "keys after rotary"),
        (
            "layers.{i}.attn.scores",
            "b,H,p_q,p_k",
            "H",
            "attention scores: scaled, soft-capped, masked, before softmax",
        ),
        ("layers.{i}.attn.pattern", "b,H,p_q,p_k", "H", "attention pattern, after softmax"),
        ("layers.{i}.attn.z", "b,p,H,d", "H", "per-head mix of values"),
    ),
    PointSpec(
        "layers.{i}.attn.head_out",
        ("b", "p", "H", "D"),
        "H",
        "each head's write into the residual stream",
        lazy=True,
    ),
    *_rows(
        ("layers.{i}.attn.out", "b,p,D", "", "after the output projection"),
        (
            "layers.{i}.attn.contribution",
            "b,p,D",
            "",
            "what attention adds to the residual stream (after a post-norm, where there is one)",
        ),
        ("layers.{i}.resid_mid", "b,p,D", "", "residual stream between attention and MLP"),
    ),
    *_norm("layers.{i}.mlp.norm", "norm before the MLP"),
    *_rows(
        ("layers.{i}.mlp.in", "b,p,D", "", "what the MLP reads"),
        (
            "layers.{i}.mlp.pre_activation",
            "b,p,M",
            "M",
            "input of the non-linearity (the gate projection where gated)",
        ),
        ("layers.{i}.mlp.pre_linear", "b,p,M", "M", "up projection of a gated MLP"),
        (
            "layers.{i}.mlp.post_activation",
            "b,p,M",
            "M",
            "the neurons: the input of the down projection",
        ),
        ("layers.{i}.mlp.router.logits", "b,p,E", "", "router scores of all experts"),
        ("layers.{i}.mlp.router.weights", "b,p,k", "", "weights of the chosen experts"),
    ),
    PointSpec(
        "layers.{i}.mlp.router.indices",
        ("b", "p", "k"),
        "",
        "indices of the chosen experts",
        differentiable=False,
    ),
    *_rows(
        (
            "layers.{i}.mlp.experts.{e}.post_activation",
            "n,M",
            "M",
            "neurons of the expert, for the tokens routed to it (save_ctx.here.token_index)",
        ),
        ("layers.{i}.mlp.out", "b,p,D", "", "raw output of the MLP"),
        (
            "layers.{i}.mlp.contribution",
            "b,p,D",
            "",
            "what the MLP adds to the residual stream (after a post-norm, where there is one)",
        ),
        ("layers.{i}.resid_post", "b,p,D", "", "residual stream leaving the block"),
    ),
    *_norm("final_norm", "final norm"),
    *_rows(("logits", "b,p,V", "V", "scores of the next token")),
)


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter of the table: always oriented [out, in], whatever the checkpoint stores."""

    template: str
    dims: tuple[str, ...]
    split: str
    what: str


def _parameters() -> Iterator[ParameterSpec]:
    yield ParameterSpec("embed.weight", ("V", "D"), "V", "token embedding")
    yield ParameterSpec("pos_embed.weight", ("P", "D"), "", "learned position embedding")
    for template, out, into in (
        ("layers.{i}.attn.q_proj", "H*d", "D"),
        ("layers.{i}.attn.k_proj", "K*d", "D"),
        ("layers.{i}.attn.v_proj", "K*d", "D"),
        ("layers.{i}.attn.o_proj", "D", "H*d"),
        ("layers.{i}.mlp.up_proj", "M", "D"),
        ("layers.{i}.mlp.gate_proj", "M", "D"),
        ("layers.{i}.mlp.down_proj", "D", "M"),
        ("layers.{i}.mlp.experts.{e}.up_proj", "M", "D"),
        ("layers.{i}.mlp.experts.{e}.gate_proj", "M", "D"),
        ("layers.{i}.mlp.experts.{e}.down_proj", "D", "M"),
        ("layers.{i}.mlp.router", "E", "D"),
    ):
        letter = next((x for x in ("H", "K", "M") if x in out + into), "")
        what = template.rsplit(".", 1)[1].replace("_proj", " projection")
        yield ParameterSpec(template, (out, into), letter, what)
        yield ParameterSpec(
            f"{template}.bias", (out,), letter if out != "D" else "", f"{what} bias"
        )
    for norm in (
        "embed.norm",
        "layers.{i}.attn.norm",
        "layers.{i}.attn.q_norm",
        "layers.{i}.attn.k_norm",
        "layers.{i}.attn.post_norm",
        "layers.{i}.mlp.norm",
        "layers.{i}.mlp.post_norm",
        "final_norm",
    ):
        size = "d" if norm.endswith(("q_norm", "k_norm")) else "D"
        yield ParameterSpec(f"{norm}.weight", (size,), "", "norm gain")
        yield ParameterSpec(f"{norm}.bias", (size,), "", "norm bias")
    yield ParameterSpec("unembed.weight", ("V", "D"), "V", "unembedding")
    yield ParameterSpec("unembed.bias", ("V",), "V", "unembedding bias")


PARAMETERS: tuple[ParameterSpec, ...] = tuple(_parameters())
