"""What a neuron does to predictions: those that change when it is held at zero, or at its mean.

Each position counts once. A token's *flips* are the positions at which it is predicted with the neuron, or without, and not both; its share is that of all
positions at which it is predicted either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True)
class TokenFlips:
    """A token whose predictions changed.

    Attributes:
        token: its number.
        flips: positions at which it is predicted with the neuron or without it, and not both.
        predicted: positions at which it is predicted either way.
        share: flips / predicted.
        appears: of the flips, those at which it is predicted without the neuron only.
    """

    token: int
    flips: int
    predicted: int
    share: float
    appears: int


@dataclass(frozen=True, eq=False, repr=False)
class FlipTable:
    """What happens without a neuron.

    Attributes:
        unit: name of the weight.
        neuron: its number.
        held: "zero" or "mean".
        tokens: with flips, those with the largest share first.
        before: predictions with it, [rows, positions].
        after: without it.
        ids: the texts.
        loss: change of the mean cross entropy of each next token that the texts have, by token.
    """

    unit: str
    neuron: int
    held: str
    tokens: list[TokenFlips]
    before: Tensor
    after: Tensor
    ids: Tensor
    loss: Mapping[int, float]

    @property
    def positions(self) -> int:
        """How many predictions changed."""
        return int((self.before != self.after).sum())

    def places(
        self, token: int, most: int = 4, around: int = 10
    ) -> list[tuple[list[int], int, int, list[int]]]:
        """Some places at which a token's prediction changes.

        Args:
            token: its number.
            most: how many places.
            around: so many tokens before and behind.

        Returns:
            Of each place (the tokens before, what is predicted with the neuron, and without it, the tokens that follow).
        """
        if self.ids.shape != self.before.shape:
            return []
        changed = (self.before != self.after) & ((self.before == token) | (self.after == token))
        found = []
        for row, at in changed.nonzero().tolist()[:most]:
            text = self.ids[row].tolist()
            one, two = int(self.before[row, at]), int(self.after[row, at])
            found.append(
                (text[max(0, at + 1 - around) : at + 1], one, two, text[at + 1 : at + 1 + around])
            )
        return found

    def to_frame(self) -> pd.DataFrame:
        """A row for each token."""
        import pandas as pd

        names = list(TokenFlips.__dataclass_fields__)
        return pd.DataFrame([asdict(each) for each in self.tokens], columns=names)

    def __repr__(self) -> str:
        of = self.before.numel()
        return f"<{self.unit} {self.neuron} held at {self.held}: {self.positions} of {of} predictions change>"


def flips(
    model: Module,
    ids: Tensor,
    unit: str,
    neuron: int,
    *,
    axis: int,
    held: str = "zero",
    run: Callable[[Module, Tensor], Tensor] | None = None,
) -> FlipTable:
    """Predictions with and without a neuron, in evaluation mode.

    Held at zero, it is as if its weights were zero: of a weight that reads the stream its own row and bias, of one that writes
    its column.

    Args:
        model: the model.
        ids: tokens, in the form that the model takes.
        unit: name of the weight, as in a record.
        neuron: its number along the axis.
        axis: of the weight, as ``record.axis(unit, side)`` tells it.
        held: "zero" or "mean": over these texts.
        run: gives logits [rows, positions, vocabulary]; by default those that the model returns.

    Raises:
        BadRequest: no such neuron, or ``held`` is something else.
    """
    import torch

    if held not in ("zero", "mean"):
        raise BadRequest(f"held={held!r} is no way to hold a neuron.", "Give 'zero' or 'mean'.")
    module, of_input = _side(model, unit, neuron, axis)
    run = run or logits_of
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            seen: list[Tensor] = []
            with _at(module, of_input, lambda value: seen.append(value[..., neuron].mean())):
                before = run(model, ids)
            value = float(torch.stack(seen).mean()) if held == "mean" else 0.0
            with _at(module, of_input, lambda each: each[..., neuron].fill_(value)):
                after = run(model, ids)
    finally:
        model.train(training)
    one, two = before.argmax(-1), after.argmax(-1)
    losses = _losses(before, after, ids)
    return FlipTable(unit, neuron, held, _counted(one, two), one, two, ids, losses)


def logits_of(model: Module, ids: Tensor) -> Tensor:
    """What a model returns, or its ``logits``."""
    output = model(ids)
    found: Tensor = getattr(output, "logits", output)
    return found


def _side(model: Module, unit: str, neuron: int, axis: int) -> tuple[Module, bool]:
    """The module of a weight, and whether the axis is that of its inputs."""
    parameter = model.get_parameter(unit)
    if parameter.dim() != 2:
        raise BadRequest(f"{unit} is not one matrix.", "Neurons of experts cannot be held.")
    if not 0 <= neuron < parameter.shape[axis]:
        raise BadRequest(f"{unit} has no neuron {neuron}.", f"It has {parameter.shape[axis]}.")
    module = model.get_submodule(unit.rpartition(".")[0])
    return module, (axis == 1) != (type(module).__name__ == "Conv1D")


@contextmanager
def _at(module: Module, of_input: bool, do: Callable[[Tensor], Any]) -> Iterator[None]:
    """While it lasts, something is done to a copy of what a module reads, or writes, which it goes on with."""

    def before(_: Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        copy = inputs[0].clone()
        do(copy)
        return (copy, *inputs[1:])

    def after(_: Module, __: Any, output: Tensor) -> Tensor:
        copy = output.clone()
        do(copy)
        return copy

    put = (
        module.register_forward_pre_hook(before)
        if of_input
        else module.register_forward_hook(after)
    )
    try:
        yield
    finally:
        put.remove()


def _counted(before: Tensor, after: Tensor) -> list[TokenFlips]:
    changed = before != after
    found: list[TokenFlips] = []
    for token in before[changed].unique().tolist() + after[changed].unique().tolist():
        if any(each.token == token for each in found):
            continue
        flipped = changed & ((before == token) | (after == token))
        predicted = int(((before == token) | (after == token)).sum())
        count, appears = int(flipped.sum()), int((changed & (after == token)).sum())
        found.append(TokenFlips(token, count, predicted, count / predicted, appears))
    return sorted(found, key=lambda each: (-each.share, -each.flips, each.token))


def _losses(before: Tensor, after: Tensor, ids: Tensor) -> dict[int, float]:
    """By token that is next, how much its cross entropy rises."""
    if before.shape[:-1] != ids.shape:
        return {}
    names = ids[:, 1:, None]
    rise = before[:, :-1].log_softmax(-1).gather(2, names) - after[:, :-1].log_softmax(-1).gather(
        2, names
    )
    return {token: float(rise[names == token].mean()) for token in names.unique().tolist()}
