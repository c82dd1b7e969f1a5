"""One forward and one backward in which is kept what edges are made of: what writers change, and the gradients at readers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.probes import Probe
from garcon_jupyter.experiments.activation_patching.measures import Measure
from garcon_jupyter.experiments.attribution.gradients import between
from garcon_jupyter.experiments.attribution.pair_batches import CLEAN, CORRUPTED, PairBatch
from garcon_jupyter.experiments.attribution.paths import Path
from garcon_jupyter.experiments.attribution.stream_ends import LAST_NORM, Seen, StreamEnds
from garcon_jupyter.experiments.clean_passes import contexts

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client


def passed(
    rmodel: Client,
    ends: StreamEnds,
    batch: PairBatch,
    measure: Measure,
    path: Path,
    edits: Mapping[str, Path],
) -> tuple[Tensor, Seen]:
    """The metric of each row, and what was seen.

    Args:
        batch: of one pair.
        path: rows whose gradients are kept.
        edits: for each point the rows that are given values between corrupted and clean there.
    """
    made, rows = rmodel.probe_points, list(path.rows)
    probes: list[Probe] = []
    wanted: list[tuple[str, str]] = []

    def ask(what: str, point: str, function: Any, **options: Any) -> None:
        probes.append(made[point].probe(function, name=name, read_only=True, **options))
        wanted.append((point, what))

    with contexts(rmodel, "edges") as name:
        for point, edited in edits.items():
            probes.append(made[point].probe(between(edited, batch.roles), name=name))
        score = _keep_score(rows, list(path.weights))
        for point in ends.points_written():
            ask("difference", point, _keep_difference)
            ask("score", point, score, grad=True)
        for layer in range(rmodel.catalog.n_layers):
            for letter in "qkv":
                point = f"layers.{layer}.attn.{letter}"
                weight = f"{point}_proj"
                ask("gradient", point, _keep_gradient(rows, weight), grad=True, params=[weight])
            ask("gradient", f"layers.{layer}.mlp.in", _keep_gradient(rows), grad=True)
        ask("gradient", f"{LAST_NORM}.out", _keep_gradient(rows), grad=True)
        keep = _keep_rows(rows)
        for norm in ends.norms():
            for part in ("scale", "normalized"):
                ask("value", f"{norm}.{part}", keep)
        for layer in ends.between():
            for part in ("out", "contribution"):
                ask("value", f"layers.{layer}.attn.{part}", keep)
        measured = rmodel.backward(
            batch.ids(), batch.metric(measure), probes=probes, logits=measure.reads, each_row=True
        )
        recordings = rmodel.recordings(fetch=False)
        found = rmodel.fetch(*(recordings[point, name].handle(what) for point, what in wanted))
    return measured, dict(zip(wanted, found, strict=True))


def _keep_difference(save_ctx: Any, tensor: Any) -> None:
    save_ctx.difference = (tensor[CLEAN] - tensor[CORRUPTED]).detach().float().cpu()


def _keep_score(rows: list[int], weights: list[float]) -> Callable[[Any, Any], None]:
    """A gradient probe that multiplies the difference with the gradient where it is written: [head], or one number."""

    def keep_score(save_ctx: Any, tensor: Any) -> None:
        each = zip(rows, weights, strict=True)
        gradient = sum(tensor[row].float() * weight for row, weight in each)
        product = save_ctx.difference.to(gradient.device) * gradient
        save_ctx.score = (product.sum((0, 2)) if product.dim() == 3 else product.sum()[None]).cpu()

    return keep_score


def _keep_rows(rows: list[int]) -> Callable[[Any, Any], None]:
    def keep_rows(save_ctx: Any, tensor: Any) -> None:
        save_ctx.value = tensor[rows].detach().float().cpu()

    return keep_rows


def _keep_gradient(rows: list[int], weight: str | None = None) -> Callable[[Any, Any], None]:
    """A gradient probe that keeps the gradient of some rows; of heads, at what they are projected from, [row, head, p, D]."""

    def keep_gradient(save_ctx: Any, tensor: Any) -> None:
        gradient = tensor[rows].float()
        if weight is not None:
            by_head = save_ctx.params[weight].float().view(*gradient.shape[2:], -1)
            gradient = (gradient.transpose(1, 2) @ by_head).contiguous()
        save_ctx.gradient = gradient.cpu()

    return keep_gradient
