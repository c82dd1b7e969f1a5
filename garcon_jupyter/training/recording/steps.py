"""What an optimizer made of the data's gradients: the shares of a step.

A step is θ′ − θ = Σ over data of share + carried + decay, which is an identity:

| | share of datum i | carried from earlier steps | decay |
|---|---|---|---|
| SGD | −lr·κ·c·gᵢ | −lr·μ·m (Nesterov: −lr·μ·μ·m) | −lr·κ·λ·θ |
| Adam | −lr·(1 − β₁)/(1 − β₁ᵗ)·c·gᵢ / (√v̂ + ε) | −lr·β₁·m/(1 − β₁ᵗ) / (√v̂ + ε) | as a share, of λ·θ |
| AdamW | the same | the same | −lr·λ·θ |

gᵢ is the gradient of a datum, c what clipping and scaling made of all of them, m the momentum before the step, v̂ the second moment after
it, which all data share. κ is 1 − dampening (1 in the first step, or without momentum), for Nesterov 1 + μ·κ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer


@dataclass(frozen=True, eq=False)
class StepShares:
    """A step of one parameter, as the sum of what made it.

    Attributes:
        parameter: its name.
        data: ids.
        shares: how far each datum moved it, [data, *shape].
        carried: how far the momentum of earlier steps did, [*shape].
        decay: how far weight decay did, [*shape].
        step: how far it moved, θ′ − θ.
    """

    parameter: str
    data: list[int]
    shares: Tensor
    carried: Tensor
    decay: Tensor
    step: Tensor

    @property
    def apart(self) -> float:
        """How far the sum is from the step: the norm of the difference, over that of the step."""
        rest = self.step - self.shares.sum(0) - self.carried - self.decay
        return float(rest.norm() / self.step.norm().clamp(min=1e-38))


@dataclass(frozen=True, eq=False)
class _Scales:
    """How an optimizer turns a gradient, as it was used, into a step."""

    scale: Tensor | float
    carried: Tensor | float
    decay: Tensor | float


class BeforeStep:
    """What a step is worked out from: a parameter and its optimizer's state as they were.

    Args:
        optimizer: which is about to step.
        parameter: one of its parameters.
        whole: whether the parameter and its momentum are kept, too; shares alone do without.

    Raises:
        BadRequest: of this optimizer no rule is known.
    """

    def __init__(self, optimizer: Optimizer, parameter: Parameter, whole: bool = True) -> None:
        self.kind = kind_of(optimizer)
        self._optimizer, self._parameter = optimizer, parameter
        state = optimizer.state.get(parameter, {})
        group = group_of(optimizer, parameter)
        self._group = {name: each for name, each in group.items() if name != "params"}
        self._first = state.get("momentum_buffer") is None
        kept = state.get("momentum_buffer" if self.kind == "SGD" else "exp_avg")
        self._theta = parameter.detach().clone() if whole else None
        self._momentum = kept.clone() if whole and kept is not None else None

    def scale(self) -> Tensor | float:
        """By what a used gradient is multiplied; after the step."""
        return self._scales().scale

    def shares(self, name: str, data: Sequence[int], used: Tensor) -> StepShares:
        """The step, after it was taken.

        Args:
            name: of the parameter.
            data: ids.
            used: the gradient of each datum as it was used, with clipping.
        """
        import torch

        assert self._theta is not None
        told = self._scales()
        zero = torch.zeros_like(self._theta)
        return StepShares(
            name,
            list(data),
            used * told.scale,
            told.carried + zero,
            told.decay + zero,
            self._parameter.detach() - self._theta,
        )

    def _scales(self) -> _Scales:
        return self._of_sgd() if self.kind == "SGD" else self._of_adam()

    def _of_sgd(self) -> _Scales:
        group, lr = self._group, _number(self._group["lr"])
        sign = -1.0 if group.get("maximize") else 1.0
        momentum = group["momentum"]
        kept = 1.0 if not momentum or self._first else 1 - group["dampening"]
        share = 1 + momentum * kept if group["nesterov"] and momentum else kept
        before: Tensor | float = 0.0 if self._momentum is None else self._momentum
        carried = momentum * (momentum if group["nesterov"] else 1.0)
        theta: Tensor | float = 0.0 if self._theta is None else self._theta
        return _Scales(
            -lr * share * sign,
            -lr * carried * before,
            -lr * share * group["weight_decay"] * theta,
        )

    def _of_adam(self) -> _Scales:
        group, state = self._group, self._optimizer.state[self._parameter]
        lr, sign = _number(group["lr"]), -1.0 if group.get("maximize") else 1.0
        (beta, other), step = map(_number, group["betas"]), _number(state["step"])
        second = state["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"]
        below = second.sqrt() / (1 - other**step) ** 0.5 + _number(group["eps"])
        factor = -lr / (1 - beta**step) / below
        theta: Tensor | float = 0.0 if self._theta is None else self._theta
        before: Tensor | float = 0.0 if self._momentum is None else self._momentum
        weight = group["weight_decay"]
        decoupled = self.kind == "AdamW" or group.get("decoupled_weight_decay")
        decay = -lr * weight * theta if decoupled else factor * (1 - beta) * weight * theta
        return _Scales(factor * (1 - beta) * sign, factor * beta * before, decay)


def kind_of(optimizer: Optimizer) -> str:
    """The name of the rule that an optimizer follows.

    Raises:
        BadRequest: none is known.
    """
    from torch import optim

    for kind in (optim.AdamW, optim.Adam, optim.SGD):  # AdamW is an Adam
        if isinstance(optimizer, kind) and type(optimizer).step is kind.step:
            return kind.__name__
    raise BadRequest(
        f"How {type(optimizer).__name__} makes a step of gradients is not known here.",
        "Shares of a step are told for torch's SGD, Adam and AdamW; leave shares and moves out with others.",
    )


def group_of(optimizer: Optimizer, parameter: Parameter) -> dict[str, Any]:
    """The group of options that a parameter belongs to."""
    for group in optimizer.param_groups:
        if any(each is parameter for each in group["params"]):
            return group
    raise BadRequest(
        f"A parameter is not among those of {type(optimizer).__name__}.",
        "Give it to the optimizer.",
    )


def _number(value: Any) -> float:
    return float(value)
