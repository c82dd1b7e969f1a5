"""Training of dictionaries on the wire: what to train where, and how it goes.

A training is a run (:mod:`garcon_jupyter.wire.runs`) whose batches go past a trainer on the server instead of probes.
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS: dict[str, str] = {
    "topk": "the k largest pre-activations of each token pass (Gao et al. 2024)",
    "batchtopk": "k · tokens pre-activations of a batch pass, whosever they are (Bussmann et al. 2024)",
    "matryoshka": "as batchtopk, and the first latents alone must do as well as they can (Bussmann et al. 2025)",
    "jumprelu": "those above a threshold of each latent, which is trained so that k pass (Rajamanoharan et al. 2024)",
    "standard": "those above 0, with a penalty on their sum (Bricken et al. 2023)",
    "gated": "those whose gate is open, by a number of its own; the penalty is on the gates (Rajamanoharan et al. 2024)",
    "transcoder": "as batchtopk, from one point to another (Dunefsky et al. 2024)",
    "crosscoder": "as batchtopk, of several points at once, whose latents are the same (Lindsey et al. 2024)",
    "cross-layer": "as batchtopk, from several points, each to its own target and all later ones (Ameisen et al. 2025)",
}
"""Kinds of dictionaries that are trained here, and what makes a latent pass."""

CROSSCODER, CROSS_LAYER = "crosscoder", "cross-layer"
"""Kinds of dictionaries of several points."""

BY_THRESHOLD = ("batchtopk", "matryoshka", "transcoder", "jumprelu", CROSSCODER, CROSS_LAYER)
"""Kinds that are written as jumprelu: what passes in a file is above a threshold."""


@dataclass(frozen=True)
class TrainingSettings:
    """A dictionary to train.

    Attributes:
        kind: one of :data:`KINDS`.
        width: how many latents; of a cross-layer transcoder in each layer.
        reads: name of the point that it reads; of several the last.
        writes: of the point that it is to write; the same for an autoencoder.
        k: latents that pass for a token, on average; of a cross-layer transcoder in each layer.
        lr: learning rate of Adam.
        batch: tokens of a step.
        seed: of weights and of the order of tokens.
        buffer_bytes: of the buffer in which tokens are shuffled.
        warm_up: steps in which the learning rate rises from 0.
        tokens: tokens of the training, over whose last fifth the learning rate falls to 0; None where it stays.
        aux: weight of the loss by which dead latents learn what the others leave.
        dead_after: tokens without passing after which a latent counts as dead.
        sparsity: weight of the penalty of standard, jumprelu and gated.
        widths: of matryoshka, how many latents each part has, the last all.
        left_out: tokens that are not trained on: "first", "special", or ids.
        measured: batches between two measurements of the loss recovered; 0 for none.
        model: that the activations are of, for the files.
        several: of a crosscoder or a cross-layer transcoder the points that it reads, each with the one that is to be written for it, in the
            order of a pass.
    """

    kind: str
    width: int
    reads: str
    writes: str
    k: int = 32
    lr: float = 3e-4
    batch: int = 2048
    seed: int = 0
    buffer_bytes: int = 128_000_000
    warm_up: int = 100
    tokens: int | None = None
    aux: float = 1.0
    dead_after: int = 500_000
    sparsity: float = 1.0
    widths: tuple[int, ...] = ()
    left_out: tuple[str | int, ...] = ("first",)
    measured: int = 100
    model: str = ""
    several: tuple[tuple[str, str], ...] = ()

    @property
    def ends(self) -> tuple[tuple[str, str], ...]:
        """Each point that it reads, with the one that is to be written for it."""
        return self.several or ((self.reads, self.writes),)

    @property
    def points(self) -> tuple[str, ...]:
        """All of them, each once: those that it reads, then those that it is to write."""
        return tuple(
            dict.fromkeys(point for side in zip(*self.ends, strict=True) for point in side)
        )

    @property
    def latents(self) -> int:
        """How many there are in all layers."""
        return self.width * (len(self.ends) if self.kind == CROSS_LAYER else 1)

    @property
    def autoencodes(self) -> bool:
        """Whether it writes what it reads."""
        return all(reads == writes for reads, writes in self.ends)

    @property
    def architecture(self) -> str:
        """What SAELens calls it, as it is written; of several points, what Llama Scope does."""
        if self.several:
            return "clt" if self.kind == CROSS_LAYER else "crosscoder"
        name = "jumprelu" if self.kind in BY_THRESHOLD else self.kind
        if self.autoencodes:
            return name
        return "transcoder" if name == "standard" else f"{name}_transcoder"


@dataclass(frozen=True)
class LossRecovered:
    """What the model loses when the dictionary stands in its place.

    Attributes:
        clean: cross entropy of the next token, in nats.
        spliced: the same with the reconstruction in place of the value.
        ablated: the same with zeros there.
    """

    clean: float
    spliced: float
    ablated: float

    @property
    def recovered(self) -> float:
        """What part of the loss between zeros and the model's own the dictionary recovers."""
        lost = self.ablated - self.clean
        return (self.ablated - self.spliced) / lost if lost else float("nan")


@dataclass(frozen=True)
class TrainingPoint:
    """How a training was, over some steps.

    Attributes:
        steps: done until then.
        tokens: trained on until then.
        unexplained: fraction of the variance that the reconstruction leaves.
        l0: latents that passed for a token.
        dead: latents that have not passed for long.
        loss: squared error of a token, scaled, with penalties.
        lr: learning rate.
    """

    steps: int
    tokens: int
    unexplained: float
    l0: float
    dead: int
    loss: float
    lr: float


@dataclass(frozen=True)
class TrainingStatus:
    """How a training goes.

    Attributes:
        settings: what is trained.
        out: directory that it will be written to.
        points: its curve.
        measured: (tokens, what the model loses), each time that it was measured.
        notes: what one should know of it, a sentence each.
        written: whether it was.
    """

    settings: TrainingSettings
    out: str
    points: tuple[TrainingPoint, ...] = ()
    measured: tuple[tuple[int, LossRecovered], ...] = ()
    notes: tuple[str, ...] = ()
    written: bool = False
