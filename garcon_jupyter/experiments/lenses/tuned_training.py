"""Tuned lenses trained on the server: the translators lie where their layers are, and data streams past them.

Each batch is run forward once, which leaves on the server the streams that enter the translators and what the model predicts. Then
translators take in their gradients, some layers at a time, each where its stream lies, with a forward of a single token to carry them
there. What travels to the notebook meanwhile is a loss and a norm for each layer; in the end the lens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from garcon_jupyter.connection.background import Pace
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import contexts, need
from garcon_jupyter.experiments.lenses.lens import BEFORE, LayerMap
from garcon_jupyter.experiments.lenses.texts import Progress, layers_of, packed, token_rows
from garcon_jupyter.experiments.lenses.tuned_lens import TunedLens, unembed_hash
from garcon_jupyter.experiments.lenses.unembedding import (
    Norm,
    final_norm,
    parameters,
    unembedded,
)

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

CHUNK = 64
"""Positions whose logits are in memory at once, of each layer."""

MOMENTUM = 0.9
DECAY = 1e-3
CLIPPED = 1.0
"""Norm of the gradient of all translators together, at most."""

_STATE = ("weight", "bias", "momentum_weight", "momentum_bias")


def train_tuned_lens(
    rmodel: Client,
    texts: Any,
    layers: int | Sequence[int] | None = None,
    *,
    steps: int = 250,
    tokens_per_step: int = 4096,
    length: int = 128,
    batch_tokens: int = 512,
    learning_rate: float = 1.0,
    start: TunedLens | None = None,
    progress: bool = True,
) -> TunedLens:
    """Train a tuned lens: for each layer an affine map of its stream, by what the model predicts in the end.

    With h[l] the stream that leaves layer l, and p what the model predicts, the translator (A, b) of the layer is trained to

        minimise the mean over tokens of KL(p ‖ softmax(unembed(norm(h[l] + A · h[l] + b))))

    It begins at zero, which is the logit lens. Loss and optimiser are those of the package tuned-lens 0.2 (Belrose et al. 2023,
    *Eliciting latent predictions from transformers with the tuned lens*): stochastic gradient descent with Nesterov's momentum of 0.9,
    weight decay of 0.001, which draws towards the logit lens, the gradient of all translators clipped at a norm of 1, and a learning rate
    that falls in a straight line to zero. They take 2¹⁸ tokens a step, in bfloat16; here it is float32.

    Translators and momentum lie on the rank that has their layer: 6 D² numbers for each. Between two requests, of which each
    is one batch or the gradients of some layers of it, other clients of the server take their turn. Over ranks, stages and replicas
    the numbers are those of one process. An interrupt ends the training: what is returned is the lens after the last whole step,
    and with it as `start` the training goes on where it was, with the same texts and settings.

    Args:
        texts: texts, or tokens. They are put one after the other in rows of `length`, and read again from the beginning
            where there are fewer than the steps take.
        layers: which; all but the last by default, and −1, the stream before the first layer.
        steps: of the optimiser.
        tokens_per_step: whose mean gradient is a step; rounded up to whole rows.
        length: tokens of a row.
        batch_tokens: of one forward, at most; of so many tokens the model's predictions are kept on the server meanwhile.
        learning_rate: at first, before it falls; of SGD as the package scales it, in units of 1 − momentum.
        start: a lens to go on with. One that was interrupted goes on at its step.
        progress: a line that says how far it is, and the mean loss of the layers.

    Returns:
        The lens; ``lens.save(directory)`` writes it as the package does. ``facts["loss"]`` is the mean KL of each layer over the
        tokens of the last step, in nats, ``facts["steps done"]`` how many there were.

    Raises:
        BadRequest: the texts do not fill a row; layers that there are not; `start` is of another model or other layers.
        PointUnavailable: the model has no residual stream, final norm or unembedding of its own.
        Interrupted: before the first step was done.

    Examples:
        >>> texts = ["The capital of France is Paris.", "The capital of Italy is Rome."] * 4
        >>> lens = experiments.train_tuned_lens(rmodel, texts, 20, steps=2, tokens_per_step=32, length=16)
        >>> lens
        <tuned lens: 1 layers, 20 to 20 of [576]>
        >>> lens.facts["steps done"]
        2
    """
    need(
        rmodel, "A tuned lens", "layers.{i}.resid_post", "layers.{i}.resid_pre", "final_norm.scale"
    )
    chosen = layers_of(layers, BEFORE, rmodel.catalog.n_layers - 2)
    if min(steps, tokens_per_step, length, batch_tokens) < 1:
        raise BadRequest(
            f"steps={steps}, tokens_per_step={tokens_per_step}, length={length}, batch_tokens={batch_tokens}: one is below 1.",
            "Give each at least 1.",
        )
    rows = packed(token_rows(rmodel, texts), length)
    if start is not None:
        _check_start(rmodel, start, chosen)
    with contexts(rmodel, "tuned lens") as name:
        training = _Training(rmodel, name, chosen, steps, learning_rate)
        training.begin(start)
        shown = Progress(steps, "steps", progress)
        each = -(-tokens_per_step // length)
        together = max(1, batch_tokens // length)
        while training.done < steps:
            first = training.done * each
            batch = [rows[number % len(rows)] for number in range(first, first + each)]
            try:
                training.step([batch[at : at + together] for at in range(0, each, together)])
            except KeyboardInterrupt:
                if not training.done:
                    raise
                break
            mean = sum(training.loss.values()) / len(chosen)
            shown.at(training.done, f"; {mean:.3f} nats from the prediction")
        shown.end(training.done)
        return training.lens()


def _check_start(rmodel: Client, start: TunedLens, layers: Sequence[int]) -> None:
    start.check(rmodel)
    if sorted(start.maps) != list(layers):
        raise BadRequest(
            f"The lens to go on with has layers {sorted(start.maps)}, and what is asked for is {list(layers)}.",
            "Ask for the same layers.",
        )


class _Training:
    """Translators on the server, and the steps that are made of them.

    Attributes:
        done: steps.
        loss: the mean of the last step, by layer.
    """

    def __init__(
        self, rmodel: Client, name: str, layers: Sequence[int], steps: int, rate: float
    ) -> None:
        self.done, self.loss = 0, dict[int, float]()
        self._rmodel, self._name, self._layers = rmodel, name, layers
        self._steps, self._rate = steps, rate
        self._norm, self._params = final_norm(rmodel), parameters(rmodel)
        self._points = {
            layer: "layers.0.resid_pre" if layer == BEFORE else f"layers.{layer}.resid_post"
            for layer in layers
        }
        self._pace = Pace(1, len(layers))

    def begin(self, start: TunedLens | None) -> None:
        """Lay the translators down where their layers are."""
        self.done = 0 if start is None else int(start.facts.get("steps done", 0))
        if self.done >= self._steps:
            raise BadRequest(
                f"The lens to go on with has had {self.done} steps, and steps={self._steps}.",
                "Give more steps: they count those that were.",
            )
        if start is not None:
            self.loss = dict(zip(self._layers, start.facts.get("loss", ()), strict=False))

        def laid(layer: int) -> Callable[[Any, Any], None]:
            if start is None:
                return _lay_down(None, None)
            return _lay_down(start.maps[layer], start.momentum.get(layer))

        self._carried({layer: laid(layer) for layer in self._layers})

    def step(self, batches: Sequence[Sequence[Sequence[int]]]) -> None:
        """One step of the optimiser, by the mean over all tokens of some batches."""
        total = sum(len(row) for batch in batches for row in batch)
        for number, batch in enumerate(batches):
            self._take_in(batch, total, first=number == 0)
        losses, squares = self._fetch("loss"), self._fetch("square")
        norm = sum(float(one) for one in squares) ** 0.5
        scale = min(1.0, CLIPPED / (norm + 1e-6))
        rate = self._rate * (1 - MOMENTUM) * (self._steps - self.done) / self._steps
        self.loss = {layer: float(one) for layer, one in zip(self._layers, losses, strict=True)}
        self.done += 1
        descend = dict.fromkeys(self._layers, _descend(scale, rate, self.done))
        try:
            self._carried(descend)
        except KeyboardInterrupt:  # a step is taken by all layers or by none
            self._carried(descend)
            raise

    def lens(self) -> TunedLens:
        """The lens as it is."""
        parts = [self._fetch(part) for part in _STATE]
        maps, momentum = {}, {}
        for layer, weight, bias, *kept in zip(self._layers, *parts, strict=True):
            maps[layer] = weight, bias
            momentum[layer] = LayerMap(*kept)
        rmodel = self._rmodel
        facts = {
            "base_model_name_or_path": PurePath(rmodel.facts["path"]).name,
            "num_hidden_layers": rmodel.catalog.n_layers,
            "unembed_hash": unembed_hash(rmodel),
            "steps done": self.done,
            "steps": self._steps,
            "loss": [self.loss[layer] for layer in self._layers],
        }
        return TunedLens.of(maps, facts, momentum)

    # -- on the server -----------------------------------------------------------------------

    def _take_in(self, batch: Sequence[Sequence[int]], total: int, first: bool) -> None:
        """Add the gradients of one batch to those of the step."""
        made = self._rmodel.probe_points
        probes = [
            made[point].probe(_keep_streams, name=self._name, read_only=True)
            for point in self._points.values()
        ]
        logits = made["logits"].probe(_keep_predictions, name=self._name, read_only=True)
        self._rmodel.forward([list(row) for row in batch], probes=[*probes, logits], logits="none")
        prediction = self._rmodel.recordings(fetch=False)["logits", self._name]
        todo = list(self._layers)
        while todo:
            part, todo = todo[: self._pace.size], todo[self._pace.size :]
            with self._pace.piece(len(part)):
                gather = _gather_gradient(self._norm, total, first)
                options = {"params": self._params, "source": prediction}
                self._carried(dict.fromkeys(part, gather), **options)

    def _carried(self, functions: dict[int, Callable[[Any, Any], None]], **options: Any) -> None:
        """Have functions run where layers lie; a token that nobody asked for carries them there."""
        probes = [
            self._rmodel.probe_points[self._points[layer]].probe(
                function, name=self._name, read_only=True, **options
            )
            for layer, function in functions.items()
        ]
        self._rmodel.forward([[0]], probes=probes, logits="none")

    def _fetch(self, part: str) -> list[Any]:
        """Something of all translators."""
        recordings = self._rmodel.recordings(fetch=False)
        handles = [recordings[point, self._name].handle(part) for point in self._points.values()]
        fetched = self._rmodel.fetch(*handles)
        return [fetched] if len(handles) == 1 else list(fetched)


def _keep_streams(save_ctx: Any, tensor: Any) -> None:
    """A probe that keeps the streams of a batch, [token, D]."""
    save_ctx.stream = tensor.flatten(0, 1)


def _keep_predictions(save_ctx: Any, tensor: Any) -> None:
    """A probe for the logits that keeps log-probabilities, [token, V]."""
    save_ctx.logs = tensor.flatten(0, 1).float().log_softmax(-1)


def _lay_down(begin: LayerMap | None, momentum: LayerMap | None) -> Callable[[Any, Any], None]:
    """A probe that lays down a translator, and what its optimiser keeps."""

    def lay_down(save_ctx: Any, tensor: Any) -> None:
        import torch

        width, device = tensor.shape[-1], tensor.device
        for name, one in (("", begin), ("momentum_", momentum)):
            weight = None if one is None else one.weight
            bias = None if one is None else one.bias
            zeros = torch.zeros(width, width, device=device)
            setattr(save_ctx, f"{name}weight", zeros if weight is None else weight.to(device))
            zeros = torch.zeros(width, device=device)
            setattr(save_ctx, f"{name}bias", zeros if bias is None else bias.to(device))

    return lay_down


def _gather_gradient(norm: Norm, total: int, first: bool) -> Callable[[Any, Any], None]:
    """A probe that adds the gradient of the kept streams to that of the step.

    Args:
        total: tokens of the step.
        first: whether this is the first batch of it.
    """
    step = CHUNK

    def gather(save_ctx: Any, tensor: Any) -> None:
        import torch

        streams, logs, params = save_ctx.stream, save_ctx.source.logs, save_ctx.params
        weight = save_ctx.weight.detach().clone().requires_grad_()
        bias = save_ctx.bias.detach().clone().requires_grad_()
        loss = torch.zeros((), dtype=torch.float64, device=streams.device)
        with torch.enable_grad():
            for at in range(0, len(streams), step):
                x = streams[at : at + step].float()
                logits = unembedded(x + x @ weight.T + bias, norm, params)
                wanted = logs[at : at + step].to(logits.device)
                apart = (wanted.exp() * (wanted - logits.log_softmax(-1))).sum() / total
                apart.backward()
                loss += apart.detach()
        if not first:
            weight.grad += save_ctx.gradient_weight
            bias.grad += save_ctx.gradient_bias
            loss += save_ctx.loss
        save_ctx.gradient_weight, save_ctx.gradient_bias = weight.grad, bias.grad
        save_ctx.loss = loss
        square = weight.grad.double().square().sum() + bias.grad.double().square().sum()
        save_ctx.square = square

    return gather


def _descend(scale: float, rate: float, number: int) -> Callable[[Any, Any], None]:
    """A probe that takes a step, once: stochastic gradient descent with Nesterov's momentum and weight decay.

    Args:
        scale: what the gradient is multiplied by.
        number: of the step.
    """

    def descend(save_ctx: Any, tensor: Any) -> None:
        if getattr(save_ctx, "steps", 0) == number:
            return
        for part in ("weight", "bias"):
            value = getattr(save_ctx, part)
            slope = getattr(save_ctx, f"gradient_{part}") * scale + DECAY * value
            kept = getattr(save_ctx, f"momentum_{part}") * MOMENTUM + slope
            setattr(save_ctx, f"momentum_{part}", kept)
            setattr(save_ctx, part, value - rate * (slope + MOMENTUM * kept))
        save_ctx.steps = number

    return descend
