"""Every probe point and parameter, declared once.

A *probe point* is a named place in the forward pass where a tensor can be read or replaced. This
table is the only declaration of them: the resolver, the documentation, tab completion, shapes,
sharding and the tests are generated from it.

Letters of a shape: b batch, p position, D d_model, H query heads, K key/value heads, d d_head, d_v that of values,
M d_mlp, E experts, m neurons of one of them, k experts per token, S neurons of the shared experts, V vocabulary,
n tokens routed to one expert, e numbers of a token's embedding for one layer, A streams beside each other, W width of the
stream beside a token's embedding; ``1`` is one. Of
latent attention (DeepSeek-AI 2024): r_q and r_kv ranks of the compressed queries and of the compressed keys and values, d_n
and d_r dimensions of a key without and with position. Where queries choose their keys, c is how many. Of a mixer that is
not attention: R heads of its recurrence and r the size of one, G heads that write to and read from its state and N the size
of one, C channels of its short convolution, I all that its output projection reads (R·r).

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


def _norm(prefix: str, name: str, absent: str = "") -> list[PointSpec]:
    rows = ((f"{prefix}.{p}", d, "", f"{name}: {what}") for p, d, what in _NORM)
    return _rows(*rows, absent=absent)


NO_SHARED = "it has no expert that all tokens go to"
NO_MIXER = "nothing but attention mixes tokens here"
_NO_DELTA = "no delta rule mixes tokens here"
_NO_LINEAR = "no linear attention mixes tokens here"
_NO_STATE_SPACE = "no state space mixes tokens here"


def _mixer() -> Iterator[PointSpec]:
    """What mixes tokens without attending: linear attention, state spaces, short convolutions.

    A state space is linear attention (Dao and Gu 2024): C are queries, B keys, x values.
    """
    at = "layers.{i}.mixer"
    yield from _rows(
        (f"{at}.aside", "b,p,D", "", "what is added to the stream for the mixer's norm alone"),
        absent="no mixer reads more than the stream here",
    )
    yield from _norm(f"{at}.norm", "norm before the mixer", NO_MIXER)
    yield from _rows((f"{at}.in", "b,p,D", "", "what the mixer reads"), absent=NO_MIXER)
    yield from _rows(
        (f"{at}.in_gate", "b,p,I", "", "what multiplies the input of the short convolution"),
        absent="nothing multiplies what a short convolution reads here",
    )
    yield from _rows(
        (f"{at}.conv_in", "b,p,C", "", "what the short convolution over positions reads"),
        (f"{at}.conv_out", "b,p,C", "", "what it puts out, after its activation"),
        absent="no short convolution mixes tokens here",
    )
    yield from _rows(
        (f"{at}.q", "b,p,G,N", "", "queries of linear attention, before their norm"),
        (f"{at}.k", "b,p,G,N", "", "keys of linear attention, before their norm"),
        (f"{at}.v", "b,p,R,r", "", "values of linear attention"),
        absent=_NO_LINEAR,
    )
    yield from _rows(
        (f"{at}.beta", "b,p,R", "", "how much of what a key reads is replaced by its value"),
        (f"{at}.decay", "b,p,R", "", "logarithm of what is kept of the state at each token"),
        absent=_NO_DELTA,
    )
    yield from _rows(
        (
            f"{at}.channel_decay",
            "b,p,R,N",
            "",
            "logarithm of what is kept of each channel of keys in the state at each token",
        ),
        absent="no channel of its keys is forgotten faster than others",
    )
    yield from _rows(
        (f"{at}.x", "b,p,R,r", "", "what is written into the state"),
        (f"{at}.dt", "b,p,R", "", "length of a step, before its bias and softplus"),
        (f"{at}.B", "b,p,G,N", "", "where in the state x is written"),
        (f"{at}.C", "b,p,G,N", "", "where the state is read"),
        absent=_NO_STATE_SPACE,
    )
    yield from _rows(
        (f"{at}.state_out", "b,p,R,r", "", "what is read from the state, before gate and norm"),
        absent="no recurrence mixes tokens here",
    )
    yield from _rows(
        (f"{at}.gate", "b,p,I", "", "what multiplies the mixer's output, before its activation"),
        absent="no gate multiplies what a mixer puts out here",
    )
    yield from _rows(
        (f"{at}.gated", "b,p,I", "", "what the mixer's output projection reads"),
        (f"{at}.out", "b,p,D", "", "after the mixer's output projection"),
        (f"{at}.contribution", "b,p,D", "", "what the mixer adds to the residual stream"),
        absent=NO_MIXER,
    )


_ONE_STREAM = "there is one residual stream, layers.{i}.resid_pre and resid_post"

LIKE = {"d_v": "d", "m": "M"}
"""Letters that are another's size in a model that does not tell them apart."""

_NO_LATENT = (
    "its attention projects queries, keys and values from the stream, not from anything compressed"
)
NO_SHARED = "it has no experts that all tokens share"

POINTS: tuple[PointSpec, ...] = (
    *_rows(
        ("embed.out", "b,p,D", "", "token embedding"),
        ("pos_embed.out", "b,p,D", "", "learned position embedding"),
    ),
    *_rows(
        ("layers.{i}.altup.streams_pre", "b,p,A,D", "", "the streams entering the block"),
        absent=_ONE_STREAM,
    ),
    *_rows(
        ("layers.{i}.resid_pre", "b,p,D", "", "residual stream entering the block"),
    ),
    *_norm("layers.{i}.attn.norm", "norm before attention"),
    *_rows(
        (
            "layers.{i}.laurel.contribution",
            "b,p,D",
            "",
            "what a low-rank path beside attention adds, and what that path reads",
        ),
        absent="no low-rank path stands beside attention",
    ),
    *_rows(
        ("layers.{i}.attn.in", "b,p,D", "", "what q, k and v are projected from"),
    ),
    *_rows(
        (
            "layers.{i}.attn.joint",
            "b,p,W",
            "",
            "norm of the stream and the token's embedding side by side: what q, k and v are projected from",
        ),
        absent="attention reads the stream alone",
    ),
    *_rows(
        (
            "layers.{i}.attn.q_latent",
            "b,p,r_q",
            "",
            "compressed queries after their norm: what q is projected from",
        ),
        (
            "layers.{i}.attn.kv_latent",
            "b,p,r_kv",
            "",
            "compressed keys and values after their norm: what k_nope and v are projected from, and a cache keeps",
        ),
        (
            "layers.{i}.attn.k_nope",
            "b,p,K,d_n",
            "K",
            "the part of each head's keys that is not rotated",
        ),
        (
            "layers.{i}.attn.k_rope",
            "b,p,d_r",
            "",
            "the part of the keys that is rotated, one for all heads, before rotary",
        ),
        absent=_NO_LATENT,
    ),
    PointSpec(
        "layers.{i}.attn.indices",
        ("b", "p", "c"),
        "",
        "which keys each query reads: their places among those of its row, in no order",
        differentiable=False,
        absent="its queries read all keys that the mask lets them see",
    ),
    *_rows(
        ("layers.{i}.attn.q", "b,p,H,d", "H", "queries, before rotary and q-norm"),
        ("layers.{i}.attn.k", "b,p,K,d", "K", "keys, before rotary, k-norm and repetition"),
        ("layers.{i}.attn.v", "b,p,K,d_v", "K", "values, before repetition to H heads"),
    ),
    *_rows(
        (
            "layers.{i}.attn.gate",
            "b,p,H,d",
            "H",
            "what multiplies z before the output projection, before its sigmoid",
        ),
        absent="its attention has no gate",
    ),
    *_rows(
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
        ("layers.{i}.attn.z", "b,p,H,d_v", "H", "per-head mix of values"),
    ),
    *_rows(
        ("layers.{i}.attn.z_normed", "b,p,H,d", "H", "per-head mix of values after a norm of all"),
        absent="no norm stands between the heads and the output projection",
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
    ),
    *_rows(
        (
            "layers.{i}.attn.post_norm.scale",
            "b,p,1",
            "",
            "norm after attention: its denominator",
        ),
        absent="no norm stands between attention and the residual stream",
    ),
    *_rows(
        (
            "layers.{i}.attn.contribution",
            "b,p,D",
            "",
            "what attention adds to the residual stream (after a post-norm, where there is one)",
        ),
    ),
    *_mixer(),
    *_rows(("layers.{i}.resid_mid", "b,p,D", "", "residual stream between attention and MLP")),
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
    ),
    *_rows(
        ("layers.{i}.mlp.post_activation_normed", "b,p,M", "M", "the neurons after a norm of all"),
        absent="no norm stands between the neurons and the down projection",
    ),
    *_rows(
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
            "n,m",
            "m",
            "neurons of the expert, for the tokens routed to it (save_ctx.here.token_index)",
        ),
    ),
    *_rows(
        (
            "layers.{i}.mlp.shared.post_activation",
            "b,p,S",
            "S",
            "neurons of the shared experts, which every token goes through",
        ),
        absent=NO_SHARED,
    ),
    *_rows(
        (
            "layers.{i}.mlp.shared.gate",
            "b,p,1",
            "",
            "what multiplies the output of the shared experts, before its sigmoid",
        ),
        absent="no gate multiplies the output of shared experts here",
    ),
    *_rows(
        (
            "layers.{i}.mlp.shared.out",
            "b,p,D",
            "",
            "what the shared experts add to mlp.out, after their gate",
        ),
        absent=NO_SHARED,
    ),
    *_rows(
        ("layers.{i}.mlp.out", "b,p,D", "", "raw output of the MLP"),
    ),
    *_rows(
        (
            "layers.{i}.mlp.post_norm.scale",
            "b,p,1",
            "",
            "norm after the MLP: its denominator",
        ),
        absent="no norm stands between the MLP and the residual stream",
    ),
    *_rows(
        (
            "layers.{i}.mlp.contribution",
            "b,p,D",
            "",
            "what the MLP adds to the residual stream (after a post-norm, where there is one)",
        ),
    ),
    *_rows(
        (
            "layers.{i}.per_layer.gate",
            "b,p,e",
            "",
            "what gates the layer's own embedding, before its activation",
        ),
        (
            "layers.{i}.per_layer.gated",
            "b,p,e",
            "",
            "the token's embedding for this layer, gated by the stream",
        ),
        (
            "layers.{i}.per_layer.contribution",
            "b,p,D",
            "",
            "what the layer's own embedding adds to the residual stream, after its norm",
        ),
        absent="tokens have one embedding, and none for each layer",
    ),
    *_rows(
        ("layers.{i}.resid_post", "b,p,D", "", "residual stream leaving the block"),
    ),
    *_rows(
        ("layers.{i}.altup.streams_post", "b,p,A,D", "", "the streams leaving the block"),
        absent=_ONE_STREAM,
    ),
    *_norm("final_norm", "final norm"),
    *_rows(("logits", "b,p,V", "V", "scores of the next token")),
)
