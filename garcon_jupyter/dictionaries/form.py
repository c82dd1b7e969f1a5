"""The choices that make one formula of all formats.

A *dictionary* writes activations as sums of few of its F directions. A sparse autoencoder reads and writes the same point, a
transcoder reads one and writes another. All formats are read into

    z   = norm(x) - b                 b is b_dec, or 0
    pre = z W_enc + b_enc             [..., F]
    f   = act(pre * r) / r            the latents; r is 1, or the norm of each latent's row of W_dec
    y   = f W_dec + b_dec (+ x W_skip)
    out = norm⁻¹(y)

with what a :class:`Form` says. What differs between files of equal tensors is only in here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class InputNorm:
    """How activations are scaled before a dictionary reads them, and what it writes is scaled back.

    Attributes:
        kind: ``none``; ``scale``, by a number; ``length``, every token to length √D; ``standard``, every token to mean 0 and
            standard deviation 1, where the deviation is the unbiased one (n - 1) and `eps` is added to it, not to its square.
        scale: the number, one for each input.
    """

    kind: Literal["none", "scale", "length", "standard"] = "none"
    scale: tuple[float, ...] = (1.0,)


STANDARD_EPS = 1e-5
"""What SAELens and OpenAI add to the standard deviation."""


@dataclass(frozen=True)
class Activation:
    """Which pre-activations pass.

    Attributes:
        kind: ``relu``; ``jumprelu``, those above a threshold of each latent; ``topk``, the k largest of a token; ``abstopk``,
            the k of largest magnitude; ``groupmax``, the largest of each of k groups of neighbours.
        k: how many.
        rectified: whether what passes is at least 0 all the same. Circuit-tracer's and Llama Scope's jumprelu is not: a
            threshold below 0 lets negative latents through.
        joint: whether the k largest are those of all layers of a cross-layer transcoder together.
    """

    kind: Literal["relu", "jumprelu", "topk", "abstopk", "groupmax"] = "relu"
    k: int = 0
    rectified: bool = True
    joint: bool = False


@dataclass(frozen=True)
class Form:
    """What a dictionary computes, but for its numbers.

    Attributes:
        kind: ``token``, a function of each token; ``crosscoder``, of one token at several points, with latents that they share;
            ``cross-layer``, of one token at each layer, written into that layer and all later ones; ``context``, of all tokens
            up to this one; ``pursuit``, chosen one latent after the other.
        norm_in: of what is read.
        norm_out: how what is written is scaled back; ``length`` and ``standard`` with the numbers of the same token.
        subtracts_bias: whether b_dec is subtracted from what is read.
        activation: which pre-activations pass.
        decoder_norms: ``gate``, where r is the norm of each row of the decoder; ``latents``, where the latents are in these units
            as well, and divided by them before they are decoded.
        gated: whether a second bias, and a scale, decide which latents are on (Rajamanoharan et al. 2024).
        glu: whether pre-activations are multiplied by the sigmoid of others.
        skip: whether what is read is also mapped to the output linearly.
        output_bias: whether there is a b_dec.
        tied: whether the encoder is the decoder, transposed.
        options: what ``context`` and ``pursuit`` have beside this, by name.
    """

    kind: Literal["token", "crosscoder", "cross-layer", "context", "pursuit"] = "token"
    norm_in: InputNorm = InputNorm()
    norm_out: InputNorm = InputNorm()
    subtracts_bias: bool = False
    activation: Activation = Activation()
    decoder_norms: Literal["", "gate", "latents"] = ""
    gated: bool = False
    glu: bool = False
    skip: bool = False
    output_bias: bool = True
    tied: bool = False
    options: dict[str, float] = field(default_factory=dict)

    @property
    def per_token(self) -> bool:
        """Whether the latents of a token are a function of this token."""
        return self.kind != "context"

    @property
    def competes(self) -> bool:
        """Whether latents displace one another, so that a part of them must be compared with the others."""
        return self.activation.kind in ("topk", "abstopk") or self.kind in ("context", "pursuit")

    @property
    def needs_input(self) -> bool:
        """Whether decoding needs what was read: for a skip, or to scale back with the token's own numbers."""
        by_token = self.norm_out.kind in ("length", "standard")
        return self.skip or by_token or self.kind == "context"
