"""Steps over rows of activations: a dictionary that learns, and what it needs to go on.

A trainer is a function of the rows that it is given, in their order, and of a seed: however they are cut into pieces, and wherever it was
put down and taken up again, the same numbers come out. Over several ranks each trains its own range of latents on the same rows; they
exchange which latents pass, and the sums of what they write.

Of several points a row has what is at all of them side by side. So a crosscoder is an autoencoder of that row, and a cross-layer transcoder
goes from one such row to another, where each latent has numbers for its own layers alone (:mod:`.layers`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from garcon_backend.dictionaries.training import choosing, gradients
from garcon_backend.dictionaries.training.chosen import ChosenLatents
from garcon_backend.dictionaries.training.curves import Curve
from garcon_backend.dictionaries.training.dead import add_auxiliary
from garcon_backend.dictionaries.training.gated import as_thresholds, of_gated
from garcon_backend.dictionaries.training.gradients import LossGradient
from garcon_backend.dictionaries.training.layers import only_own_layers
from garcon_backend.dictionaries.training.optimizing import Optimizer, learning_rate
from garcon_backend.dictionaries.training.shuffling import ShuffleBuffer
from garcon_backend.dictionaries.training.weights import TrainedWeights, drawn
from garcon_backend.distributed.collectives import Ranks, span
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.wire.dictionary_training import (
    BY_THRESHOLD,
    CROSS_LAYER,
    TrainingPoint,
    TrainingSettings,
)

_SAMPLE = 1024
"""Rows by which thresholds are first set."""

_FOLLOWS = 0.01
"""By how much a batch moves the threshold that stands for top-k of a batch."""

Scale = float | Tensor
"""By what a row is multiplied: a number; of several points a number for each of its columns."""

_PENALTIES = {"standard": 5.0, "jumprelu": 30.0, "gated": 5.0}
"""Of a sparsity of 1, where activations have length √D."""


class Trainer:
    """A dictionary in training, on one rank.

    Args:
        settings: what to train.
        d_in: numbers of a row that is read, at all its points.
        d_out: numbers of a row that is to be written.
        ranks: that share the latents; this one alone, if nothing is said.

    Attributes:
        latents: those that this rank holds.
        weights: in units in which rows have length √D on average; None until the buffer is full for the first time.
        curve: how it went.
        steps: done.
        tokens: trained on.
        seen: rows that were taken in.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        d_in: int,
        d_out: int,
        ranks: Ranks | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings, self.d_in, self.d_out = settings, d_in, d_out
        self.ranks, self.device = ranks or Ranks(), torch.device(device)
        self.latents = range(*span(settings.latents, self.ranks.size, self.ranks.rank))
        self.weights: TrainedWeights | None = None
        self.curve = Curve()
        self.steps = self.tokens = self.seen = 0
        width = d_in if settings.autoencodes else d_in + d_out
        rows = settings.buffer_bytes // (4 * width)
        self._buffer = ShuffleBuffer(rows, width, settings.batch, settings.seed, self.device)
        self._scales: tuple[tuple[float, ...], ...] = ((1.0,), (1.0,))
        """Of each point that is read, and of each that is to be written."""
        self._quiet = torch.zeros(len(self.latents), dtype=torch.long, device=self.device)
        """Tokens since each latent passed."""
        self._follows = torch.zeros(2, dtype=torch.float64)
        """The sum and the weight of the threshold's moving mean."""
        self._optimizer: Optimizer | None = None

    # -- rows ------------------------------------------------------------------------------------

    @torch.no_grad()
    def take(self, rows: Tensor, targets: Tensor | None = None) -> None:
        """Take in rows, and make a step for each batch that they drive out of the buffer.

        Args:
            rows: [n, D], of any dtype.
            targets: [n, O], what is to be written of each; the rows themselves, for an autoencoder.

        Raises:
            BadRequest: the training has diverged.
        """
        self.seen += len(rows)
        given = rows if targets is None else torch.cat([rows, targets.to(rows.dtype)], 1)
        for batch in self._buffer.put(given.to(self.device, torch.float32)):
            self._step(batch)

    @torch.no_grad()
    def finish(self) -> bool:
        """When no more rows come: make a step on what is left in the buffer; whether there was a batch."""
        batch = self._buffer.rest()
        if batch is not None:
            self._step(batch)
        return batch is not None

    def _split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What is read, and what is to be written, both scaled."""
        read, target = rows[:, : self.d_in], rows[:, -self.d_out :]
        return read * self.scales[0], target * self.scales[1]

    # -- a step ----------------------------------------------------------------------------------

    def _step(self, batch: Tensor) -> None:
        weights = self.weights or self._begin(batch)
        settings, ranks = self.settings, self.ranks
        read, target = self._split(batch)
        z = read - weights.output_bias if settings.autoencodes else read
        found = self._loss(weights, z, target)
        dead = (self._quiet >= settings.dead_after).nonzero().flatten()
        dead_count = int(ranks.sum(torch.tensor([len(dead)], device=self.device)))
        loss = found.loss
        if dead_count and settings.aux:
            loss = loss + add_auxiliary(
                found.gradient, weights, z, found.error, dead, dead_count, settings.aux, ranks
            )
        if not math.isfinite(float(loss)):
            raise BadRequest(
                f"The training diverged at step {self.steps}: the loss is {float(loss)}.",
                f"Give a lower lr than {settings.lr:g}, or look at the activations for what is not finite.",
            )
        if settings.autoencodes:
            gradients.through_encoder(found.gradient, weights, ranks)
        self._own_layers(found.gradient)
        rate = learning_rate(settings, self.steps, self.tokens)
        assert self._optimizer is not None
        self._optimizer.step(found.gradient, rate)
        self._quiet += len(batch)
        self._quiet[found.passed > 0] = 0
        self.steps, self.tokens = self.steps + 1, self.tokens + len(batch)
        l0 = float(ranks.sum(found.passed.sum())) / len(batch)
        point = (self._unexplained(found.error, target), l0, dead_count, float(loss), rate)
        self.curve.add(TrainingPoint(self.steps, self.tokens, *point))

    def _loss(self, weights: TrainedWeights, z: Tensor, target: Tensor) -> LossGradient:
        settings = self.settings
        if settings.kind in _PENALTIES:
            penalty = _PENALTIES[settings.kind] * settings.sparsity
            if settings.kind == "gated":
                return of_gated(weights, z, target, self.ranks, penalty)
            return gradients.of_all(weights, z, target, self.ranks, penalty, settings.k)
        if settings.kind == "topk":
            chosen = choosing.largest(z, weights, settings.k, self.ranks)
        else:
            each = len(settings.ends) if settings.kind == CROSS_LAYER else 1
            chosen = choosing.largest_of_batch(z, weights, settings.k * each, self.ranks)
            self._follow(chosen)
        return gradients.of_chosen(weights, z, target, chosen, self.ranks, self._ends())

    def _ends(self) -> list[int]:
        """Where the parts of a matryoshka dictionary end, among this rank's latents."""
        first, count = self.latents.start, len(self.latents)
        return [min(max(0, end - first), count) for end in self.settings.widths]

    def _follow(self, chosen: ChosenLatents) -> None:
        """Let the threshold follow the weakest latent that passed."""
        least = chosen.values.min() if len(chosen.values) else torch.tensor(math.inf)
        least = self.ranks.all_gather(least.reshape(1).to(self.device), self.ranks.size).min()
        if torch.isfinite(least):
            new = torch.tensor([float(least), 1.0], dtype=torch.float64)
            self._follows += _FOLLOWS * (new - self._follows)

    @staticmethod
    def _unexplained(error: Tensor, target: Tensor) -> float:
        total = (target - target.mean(0)).square().sum()
        return float(error.square().sum() / total.clamp(min=1e-30))

    def _begin(self, batch: Tensor) -> TrainedWeights:
        """Weights to begin with, by what is in the buffer: scales, means, thresholds."""
        settings, rows = self.settings, torch.cat([self._buffer.rows, batch])
        sides = (rows[:, : self.d_in], rows[:, -self.d_out :])
        points = len(settings.ends)
        self._scales = tuple(
            tuple(
                math.sqrt(part.shape[1]) / max(float(part.norm(dim=1).mean()), 1e-30)
                for part in side.chunk(points, dim=1)
            )
            for side in sides
        )
        tied = settings.autoencodes
        weights = drawn(settings.latents, self.latents, self.d_in, self.d_out, settings.seed, tied)
        self._own_layers(weights)
        weights = TrainedWeights(
            **{name: value.to(self.device) for name, value in weights.tensors().items()}
        )
        weights.output_bias = sides[1].mean(0) * self.scales[1]
        if settings.kind == "jumprelu":
            weights.threshold = self._first_threshold(weights, batch[:_SAMPLE])
        elif settings.kind == "gated":
            weights.gate_bias = torch.zeros_like(weights.encoder_bias)
            weights.gate_scale = torch.zeros_like(weights.encoder_bias)
        self._adopt(weights)
        assert self._optimizer is not None
        if settings.kind == CROSS_LAYER:
            self._optimizer.normalize()
        return weights

    def _own_layers(self, weights: TrainedWeights) -> None:
        """Leave to the latents of a cross-layer transcoder what is of their layers."""
        if self.settings.kind == CROSS_LAYER:
            only_own_layers(weights, self.latents, self.settings.width, len(self.settings.ends))

    def _adopt(self, weights: TrainedWeights) -> None:
        self.weights, self._optimizer = weights, Optimizer(weights)

    def _first_threshold(self, weights: TrainedWeights, rows: Tensor) -> Tensor:
        """One above which k latents pass for a token."""
        z = self._split(rows)[0]
        z = z - weights.output_bias if self.settings.autoencodes else z
        pre = linear(z, weights.encoder, weights.encoder_bias)
        k = min(self.settings.k, self.settings.width)
        values = pre.topk(min(k, weights.latents), dim=-1).values
        threshold = choosing.weakest(values.relu(), k, self.ranks).mean()
        return torch.full_like(weights.encoder_bias, float(threshold))

    # -- what was learnt -------------------------------------------------------------------------

    @property
    def threshold(self) -> float:
        """What a latent has to be above, where that is one number: of top-k of a batch."""
        return float(self._follows[0] / self._follows[1].clamp(min=1e-30))

    @property
    def scales(self) -> tuple[Scale, Scale]:
        """By what rows that are read, and rows that are to be written, were multiplied."""
        sides = zip(self._scales, (self.d_in, self.d_out), strict=True)
        read, written = (self._by_column(each, width) for each, width in sides)
        return read, written

    def _by_column(self, each: tuple[float, ...], width: int) -> Scale:
        if len(each) == 1:
            return each[0]
        return torch.tensor(each, device=self.device).repeat_interleave(width // len(each))

    @property
    def point_scales(self) -> tuple[tuple[float, ...], ...]:
        """As :attr:`scales`, of each point."""
        return self._scales

    @torch.no_grad()
    def reconstruction(self, rows: Tensor) -> Tensor:
        """What the dictionary, as it would be written now, makes of rows [n, D], [n, O]."""
        weights = self._trained()
        read = rows.to(self.device, torch.float32) * self.scales[0]
        z = read - weights.output_bias if self.settings.autoencodes else read
        if self.settings.kind == "topk":
            chosen = choosing.largest(z, weights, self.settings.k, self.ranks)
        else:
            threshold = weights.threshold
            if self.settings.kind == "gated":
                weights, threshold = as_thresholds(weights)
            elif threshold is None:
                by_one = 0.0 if self.settings.kind == "standard" else self.threshold
                threshold = torch.full_like(weights.encoder_bias, by_one)
            chosen = choosing.above(z, weights, threshold)
        written = self.ranks.sum(chosen.decoded(weights.decoder)) + weights.output_bias
        return (written / self.scales[1]).to(rows.dtype)

    def _trained(self) -> TrainedWeights:
        if self.weights is None:
            raise BadRequest(
                f"Nothing was trained: {self.seen:,} tokens came, and a step takes {self.settings.batch:,}.",
                "Give more data, or a smaller batch=.",
            )
        return self.weights

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """This rank's part of the dictionary for rows as they are: the scales are in its weights.

        By names of :class:`TrainedWeights`; with a threshold [F], where that decides what passes.
        """
        read, written = self.scales
        found = self.learnt()
        return found | {
            "encoder": found["encoder"] * read,
            "decoder": found["decoder"] / written,
            "output_bias": found["output_bias"] / written,
        }

    @torch.no_grad()
    def learnt(self) -> dict[str, Tensor]:
        """As :meth:`folded`, for rows that are scaled."""
        weights = self._trained()
        found = {
            "encoder": weights.encoder,
            "encoder_bias": weights.encoder_bias.clone(),
            "decoder": weights.decoder,
            "output_bias": weights.output_bias,
        }
        if weights.gate_bias is not None and weights.gate_scale is not None:
            found |= {
                "gate_bias": weights.gate_bias.clone(),
                "gate_scale": weights.gate_scale.clone(),
            }
        elif weights.threshold is not None:
            found["threshold"] = weights.threshold.clone()
        elif self.settings.kind in BY_THRESHOLD:
            found["threshold"] = torch.full_like(weights.encoder_bias, self.threshold)
        return found

    # -- put down and taken up -------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that it needs to go on: its own tensors, no copies, and numbers as JSON has them."""
        tensors = {f"buffer.{name}": part for name, part in self._buffer.state().items()}
        tensors |= {"quiet": self._quiet, "follows": self._follows}
        if self.weights is not None and self._optimizer is not None:
            for name, value in self.weights.tensors().items():
                tensors[f"weights.{name}"] = value
            for name, value in self._optimizer.state().items():
                tensors[f"adam.{name}"] = value
        numbers: dict[str, Any] = {"steps": self.steps, "tokens": self.tokens, "seen": self.seen}
        numbers["latents"] = [self.latents.start, self.latents.stop]
        return tensors, {**numbers, "scales": list(self._scales), "curve": self.curve.state()}

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Be as it was.

        Raises:
            BadRequest: it was another part of the latents.
        """
        start, stop = numbers["latents"]
        if self.latents != range(start, stop):
            raise BadRequest(
                f"The checkpoint has latents {start} to {stop - 1}, and this rank holds {self.latents.start} to "
                f"{self.latents.stop - 1}.",
                "Serve the model over as many tensor-parallel ranks as before.",
            )

        def of(kind: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(f"{kind}."): value
                for name, value in tensors.items()
                if name.startswith(f"{kind}.")
            }

        self._buffer.restore(of("buffer"))
        self._quiet = tensors["quiet"].to(self.device).clone()
        self._follows = tensors["follows"].clone()
        if weights := of("weights"):
            self._adopt(
                TrainedWeights(**{name: v.to(self.device).clone() for name, v in weights.items()})
            )
            assert self._optimizer is not None
            self._optimizer.restore(of("adam"))
        self.steps, self.tokens, self.seen = (numbers[n] for n in ("steps", "tokens", "seen"))
        # One number each, as versions without several points wrote it.
        self._scales = tuple(
            (each,) if isinstance(each, float) else tuple(each) for each in numbers["scales"]
        )
        self.curve.restore(numbers["curve"])


def needed(settings: TrainingSettings, d_in: int, d_out: int, ranks: int = 1) -> int:
    """Bytes that a trainer takes on each of so many ranks: weights, their gradient and two moments; buffer; what a step holds."""
    latents = -(-settings.latents // ranks)
    weights = 4 * 4 * (latents * (d_in + d_out + 3) + d_out)
    width = d_in if settings.autoencodes else d_in + d_out
    rows = max(settings.buffer_bytes // (4 * width), settings.batch) + settings.batch
    parts = max(1, len(settings.widths))
    passing = settings.k * settings.latents // settings.width
    step = 4 * settings.batch * (width + 2 * d_in + (3 + 3 * parts) * d_out) + 4 * 4 * choosing.TILE
    return weights + 4 * rows * width + step + 4 * 6 * passing * settings.batch
