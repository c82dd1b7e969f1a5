"""Edges into many targets in one backward, through a model of which all is held but the sums.

Each row of a batch is a copy of the prompt, with a target of its own: the pre-activation of a latent, or a logit less the mean of
all. Its gradient goes back along the residual stream, through values and output projections of attention, and ends where it meets
a latent, an error or the embedding: there it is multiplied with what is there. Patterns, denominators of norms and errors get
none, so rows of a target's edges add up to it, but for what biases add.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.probes import Probe
from garcon_jupyter.experiments.attribution_graphs.run import PromptRun
from garcon_jupyter.experiments.attribution_graphs.transcoders import (
    ENTERS,
    WRITTEN,
    LayerTranscoder,
    held_points,
)
from garcon_jupyter.experiments.clean_passes import contexts
from garcon_jupyter.points import fill

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client
    from garcon_jupyter.client.tokens import Tokens

LATENT, LOGIT = "latent", "logit"

_NEAR_ONE = 1 - 1e-7

Target = tuple[str, int]
""" "latent" and its number among those that are active, or "logit" and the token's id."""


def logit_cap(rmodel: Client) -> float | None:
    """At what the model soft-caps its logits (Gemma 2); a graph's logits are those before, which are sums."""
    cap: float | None = rmodel.facts["model"].get("logit_cap")
    return cap


@dataclass(frozen=True)
class FrozenModel:
    """A model with its transcoders on a prompt.

    Attributes:
        bypass: positions where errors are all that the MLP puts out.
    """

    rmodel: Client
    tokens: Tokens
    transcoders: Sequence[LayerTranscoder]
    run: PromptRun
    bypass: tuple[int, ...]

    def sources(self) -> int:
        """How many: active latents, errors of each layer and position, tokens."""
        length = self.tokens.shape[1]
        return len(self.run.which) + (self.rmodel.catalog.n_layers + 1) * length

    def edges(self, targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
        """What each source adds to each target, float64 [target, source], and what the targets are, [target]."""
        import torch

        rmodel = self.rmodel
        ids = self.tokens.ids.expand(len(targets), -1)
        loss, points = self._loss(targets)
        names = dict.fromkeys(each.name for each in self.transcoders)
        # What goes past is told apart below: here it goes through latents and errors like all else.
        through = rmodel.spliced(*names, error="frozen", bypass=())
        with contexts(rmodel, "graph") as name, through:
            probes, read = self._probes(name)
            values = rmodel.backward(
                ids, loss, probes=probes, values=points, logits="last", each_row=True
            )
            recordings = rmodel.recordings(fetch=False)
            got = rmodel.fetch(*[recordings[point, name].handle("edges") for point in read])
        found = dict(zip(read, got, strict=True))
        return torch.cat(self._in_order(found), 1).double(), values.double()

    def _in_order(self, found: dict[str, Tensor]) -> list[Tensor]:
        """Edges of latents, of errors layer by layer, and of tokens."""
        latents = [found[each.point("latents")] for each in self.transcoders]
        mine = {each.layer: each for each in self.transcoders}
        errors = []
        for layer in range(self.rmodel.catalog.n_layers):
            if layer not in mine:
                errors.append(found[fill(WRITTEN, layer)])
                continue
            error = found[mine[layer].point("error")]
            if self.bypass:
                error = error + found[mine[layer].point("reconstruction")]
            errors.append(error)
        return [*latents, *errors, found[ENTERS]]

    # -- what is asked -------------------------------------------------------------------------

    def _loss(self, targets: Sequence[Target]) -> tuple[Callable[..., Any], list[str]]:
        """The targets of the rows, as a function of logits and of the pre-activations that it names."""
        by_point: dict[str, list[tuple[int, int, int]]] = {}
        tokens: list[tuple[int, int]] = []
        for row, (kind, number) in enumerate(targets):
            if kind == LOGIT:
                tokens.append((row, number))
                continue
            point = self.transcoders[int(self.run.which[number])].point("pre_activation")
            place = self.run.places[number].tolist()
            by_point.setdefault(point, []).append((row, *place))
        places, cap = list(by_point.values()), logit_cap(self.rmodel)

        def of_rows(logits: Any, values: Any = ()) -> Any:
            import torch

            last = logits[:, -1]
            # Of all rows, so that the gradient, if only zero, comes by every probe.
            wide = torch.promote_types(last.dtype, torch.float32)
            found = last.sum(-1).to(wide) * 0.0
            for row, token in tokens:
                one = torch.zeros_like(found)
                one[row] = 1
                whole = last[row].to(wide)
                if cap:  # the cap's own slope and this one's are one
                    whole = cap * torch.atanh((whole / cap).clamp(-_NEAR_ONE, _NEAR_ONE))
                found = found + one * (whole[token] - whole.mean())
            for value, mine in zip(values, places, strict=True):
                rows, positions, latents = (list(axis) for axis in zip(*mine, strict=True))
                at = torch.tensor(rows, device=found.device)
                numbers = value[rows, positions, latents].to(found.device, found.dtype)
                found = found.index_add(0, at, numbers)
            return found

        if by_point:
            return of_rows, list(by_point)
        return lambda logits: of_rows(logits), []

    def _probes(self, name: str) -> tuple[list[Probe], list[str]]:
        """All probes of a pass, and the points that leave edges."""
        points = self.rmodel.probe_points
        probes = [
            points[held].probe(_nothing, grad=True, name=name) for held in held_points(self.rmodel)
        ]
        read = []
        for number, each in enumerate(self.transcoders):
            mine = self.run.of(number)
            point = each.point("latents")
            active = _of_active(self.run.places[mine], self.run.activations[mine])
            probes.append(points[point].probe(active, grad=True, name=name))
            read.append(point)
            read.append(each.point("error"))
            kept = [(read[-1], _times_gradient(None))]
            if self.bypass:
                read.append(each.point("reconstruction"))
                kept.append((read[-1], _times_gradient(self.bypass)))
            for kept_point, multiply in kept:
                probes.append(points[kept_point].probe(_keep, name=name, read_only=True))
                probes.append(
                    points[kept_point].probe(multiply, grad=True, name=name, read_only=True)
                )
        covered = {each.layer for each in self.transcoders}
        whole = [fill(WRITTEN, i) for i in range(self.rmodel.catalog.n_layers) if i not in covered]
        for point in (*whole, ENTERS):
            probes.append(points[point].probe(_keep, name=name, read_only=True))
            probes.append(points[point].probe(_times_gradient_and_end, grad=True, name=name))
            read.append(point)
        return probes, read


def _nothing(save_ctx: Any, tensor: Any) -> Any:
    """A gradient probe at what is held."""
    return tensor * 0


def _keep(save_ctx: Any, tensor: Any) -> None:
    save_ctx.value = tensor[0].detach()


def _of_active(places: Tensor, activations: Tensor) -> Callable[[Any, Any], Any]:
    """A gradient probe at latents: activation × gradient of those that are active; nothing goes on to what made them so."""
    positions, latents = places[:, 0].clone(), places[:, 1].clone()
    activations = activations.clone()

    def of_active(save_ctx: Any, tensor: Any) -> Any:
        at = positions.to(tensor.device), latents.to(tensor.device)
        own = activations.to(tensor.device, tensor.dtype)
        save_ctx.edges = (tensor[:, at[0], at[1]] * own).cpu()
        return tensor * 0

    return of_active


def _times_gradient(only: tuple[int, ...] | None) -> Callable[[Any, Any], None]:
    """A gradient probe that leaves value × gradient of each position, [row, p]; of some positions, where they are given."""

    def times_gradient(save_ctx: Any, tensor: Any) -> None:
        edges = (tensor * save_ctx.value).flatten(2).sum(-1)
        if only is not None:
            import torch

            chosen = torch.zeros_like(edges)
            places = [place for place in only if place < edges.shape[1]]
            chosen[:, places] = edges[:, places]
            edges = chosen
        save_ctx.edges = edges.cpu()
        del save_ctx.value

    return times_gradient


def _times_gradient_and_end(save_ctx: Any, tensor: Any) -> Any:
    """As :func:`_times_gradient`, where nothing before is a source."""
    save_ctx.edges = (tensor * save_ctx.value).flatten(2).sum(-1).cpu()
    del save_ctx.value
    return tensor * 0
