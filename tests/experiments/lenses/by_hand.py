"""Lenses by plain transformers and torch, in float64: what the served ones are held against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.oracle import Plain


def doubled(plain: Plain) -> Any:
    """The model of a plain one, in float64."""
    import copy

    return copy.deepcopy(plain.model).double()


def jacobian(model: Any, row: Tensor, layer: int, skip: int) -> Tensor:
    """∂ last stream / ∂ stream after a layer of one text: summed over positions of the former, averaged over those of the latter."""
    layers = model.model.layers
    with torch.no_grad():
        streams = model(row[None], output_hidden_states=True).hidden_states

    def last(stream: Tensor) -> Tensor:
        caught: list[Tensor] = []
        hooks = [
            layers[layer].register_forward_hook(lambda *_: stream),
            layers[-1].register_forward_hook(lambda _, __, out: caught.append(out)),
        ]
        try:
            model(row[None])
        finally:
            for hook in hooks:
                hook.remove()
        return caught[0][0]

    whole: Tensor = torch.autograd.functional.jacobian(last, streams[layer + 1])[:, :, 0]
    counted = slice(skip, len(row) - 1)
    return whole[counted][:, :, counted].sum(0).mean(1)


Map = Callable[[int, Tensor], Tensor]


@torch.no_grad()
def divergences(model: Any, row: Tensor, of: Map, normed: bool = True) -> Tensor:
    """KL of each layer's readout from the prediction, [layer, p], by a map of each but the last."""
    out = model(row[None], output_hidden_states=True)
    wanted, found = out.logits[0].log_softmax(-1), []
    for layer, stream in enumerate(out.hidden_states[1:-1]):
        mapped = of(layer, stream[0])
        logs = model.lm_head(model.model.norm(mapped) if normed else mapped).log_softmax(-1)
        found.append((wanted.exp() * (wanted - logs)).sum(-1))
    return torch.stack(found)


def trained(
    model: Any, rows: Tensor, steps: int, each: int, biased: bool = True
) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases after some steps of torch's own optimiser, as the package tuned-lens sets it up."""
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    weights = [torch.zeros(width, width, dtype=torch.float64) for _ in range(layers)]
    biases = [torch.zeros(width, dtype=torch.float64) for _ in range(layers)]
    learnt = [value.requires_grad_() for value in (*weights, *(biases if biased else ()))]
    optimiser = torch.optim.SGD(learnt, 0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    for step in range(steps):
        batch = rows[[(step * each + one) % len(rows) for one in range(each)]]
        with torch.no_grad():
            out = model(batch, output_hidden_states=True)
        wanted = out.logits.log_softmax(-1)
        for number, stream in enumerate(out.hidden_states[:-1]):
            mapped = stream + stream @ weights[number].T + biases[number]
            logs = model.lm_head(model.model.norm(mapped)).log_softmax(-1)
            (wanted.exp() * (wanted - logs)).sum(-1).mean().backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimiser.param_groups[0]["lr"] = 0.1 * (steps - step) / steps
        optimiser.step()
        optimiser.zero_grad()
    return [one.detach() for one in weights], [one.detach() for one in biases]
