"""Direct logit attribution: a difference of logits as the sum of what each part of the model writes.

found = experiments.direct_logit_attribution(rmodel, text, answers=(" Mary", " John"), by="head")
found.values                      # [layer, head], in logits
found.more["total"]               # with what no head writes: the difference of logits
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import need, one_text
from garcon_jupyter.experiments.reading.readout import LAST_NORM, Readout, read_out
from garcon_jupyter.experiments.reading.stream_parts import Part, stream_parts
from garcon_jupyter.experiments.reading.within_parts import (
    ATTENTION,
    MLP,
    Half,
    LogitWriter,
    by_head,
    by_neuron,
    by_source,
    writers,
)
from garcon_jupyter.experiments.result import ExperimentResult, Label
from garcon_jupyter.experiments.target_tokens import one_token_each

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client
    from garcon_jupyter.client.tokens import Tokens

By = Literal["component", "layer", "head", "neuron", "position"]

SAYS = "logits that a part writes to the difference of the answers, by its direct way"

TOLERANCES = {"float32": 1e-4, "float64": 1e-4, "float16": 1e-2}
"""By dtype of the model, what share of a sum may be rounding; of bfloat16 more."""

_WITHIN: dict[str, tuple[Half, str, str, Callable[..., list[Tensor]]]] = {
    "head": (ATTENTION, "layers.{i}.attn.head_out", "head", by_head),
    "neuron": (MLP, "layers.{i}.mlp.post_activation", "unit", by_neuron),
    "position": (ATTENTION, "layers.{i}.attn.pattern", "position", by_source),
}
"""What is smaller than a component: which half it is in, a point that tells of it, its axis, and how it is read."""


def direct_logit_attribution(
    rmodel: Client,
    text: Any,
    answers: Sequence[Any] | str | int | None = None,
    by: By = "component",
    position: int = -1,
) -> ExperimentResult:
    r"""What each part of the model writes to a difference of logits, by its direct way.

    The stream that leaves the last layer is the sum of what the embedding and every head, MLP and bias put there. The final norm, with
    the denominator that it has at this place, and the unembedding are linear, so the difference of the logits of two tokens u₁, u₂ is
    a sum as well, of one number for each part c (Elhage et al. 2021; nostalgebraist 2020):

        c · centred(gain ⊙ (u₁ − u₂)) / scale                    (centred where the norm is a LayerNorm)

    and of a constant from the biases of norm and unembedding. It says what a part writes itself, and nothing of what others make of it.

    Args:
        text: one text, or tokens.
        answers: two tokens (texts or ids), for the difference of their logits, or one, for its logit; by default the two that the model
            finds likeliest.
        by: "component" (embedding, attention, mixer and MLP of each layer, biases), "layer", "head" [layer, head], "neuron"
            [layer, unit], or "position" [layer, position]: what all heads of a layer bring from each position of the text.
        position: where in the text the logits are.

    Returns:
        ``values`` in logits. By head, neuron and position ``more["rest"]`` has what is none of them, named by ``facts["rest"]``.
        ``more["total"]`` is the sum of all, and ``facts["difference"]`` the model's own difference of logits; where these are
        soft-capped, ``facts["uncapped"]`` is what the sum is of.

    Raises:
        PointUnavailable: the model lacks points that this is made of.
        BadRequest: several texts; answers that are none; a model whose stream is no sum of parts, or whose logits are more than final
            norm and unembedding. Says which.

    Examples:
        >>> text = "When John and Mary went to the shops, John gave the bag to"
        >>> found = experiments.direct_logit_attribution(rmodel, text, answers=(" Mary", " John"), by="head")
        >>> found.strongest(1)
        [({'layer': 23, 'head': 3}, ...)]
        >>> bool(abs(found.more["total"] - found.facts["difference"]) < 1e-4)
        True
    """
    tokens = one_text(rmodel, text)
    _check(rmodel, tokens, by, position)
    ids = _answers(rmodel, tokens, answers, position)
    tolerance = TOLERANCES.get(rmodel.facts["model"]["dtype"], 5e-2)
    parts = stream_parts(rmodel, tokens, position, tolerance)
    readout = read_out(rmodel, tokens, position, ids, tolerance)
    values, axes, rest = _told(rmodel, tokens, position, by, parts, readout, tolerance)
    total = values.nansum() + sum(rest.values())
    _check_sum(float(total), readout.uncapped, parts, readout, tolerance)
    facts = {
        "model": rmodel.facts["name"],
        "tokens": list(rmodel.token_strings(tokens)[0]),
        "answers": list(ids),
        "position": position,
        "by": by,
        "difference": readout.difference,
        "uncapped": readout.uncapped,
        "limits": _limits(readout),
    }
    more = {"total": total.float()}
    if rest:
        import torch

        facts["rest"] = list(rest)
        more["rest"] = torch.tensor([*rest.values()])
    return ExperimentResult("direct_logit_attribution", values.float(), axes, SAYS, facts, more)


def _told(
    rmodel: Client,
    tokens: Tokens,
    position: int,
    by: By,
    parts: list[Part],
    readout: Readout,
    tolerance: float,
) -> tuple[Tensor, dict[str, tuple[Label, ...]], dict[str, float]]:
    """Values with their axes, and what is none of them, by name."""
    import torch

    written = {part.name: float(part.vector @ readout.direction) for part in parts}
    if by == "component":
        named = {**written, "biases": readout.constant}
        return torch.tensor([*named.values()], dtype=torch.float64), {by: tuple(named)}, {}
    if by == "layer":
        layered: dict[Label, float] = {}
        for part in parts:
            label = "embedding" if part.layer is None else part.layer
            layered[label] = layered.get(label, 0.0) + written[part.name]
        layered["biases"] = readout.constant
        return torch.tensor([*layered.values()], dtype=torch.float64), {by: tuple(layered)}, {}
    half, point, axis, read = _WITHIN[by]
    having = rmodel.catalog.layers.get(point, ())
    mine = [part for part in parts if part.kind != half.kind or part.layer in having]
    found = writers(rmodel, tokens, position, half, mine, readout.direction, tolerance)
    each = read(rmodel, tokens, position, found)
    for writer, numbers in zip(found, each, strict=True):
        name = f"{half.kind} {writer.layer}"
        _check_within(name, by, writer, numbers, tolerance)
        written[f"{name}, biases"] = written.pop(name) - float(numbers.sum())
    axes: dict[str, tuple[Label, ...]] = {
        "layer": tuple(writer.layer for writer in found),
        axis: tuple(range(len(each[0]))),
    }
    return torch.stack(each), axes, {**written, "biases": readout.constant}


def _answers(
    rmodel: Client, tokens: Tokens, answers: Sequence[Any] | str | int | None, position: int
) -> tuple[int, ...]:
    """The token ids of the answers."""
    if answers is None:
        best = rmodel.forward(
            tokens, probes=[], logits=lambda logits: logits[0, position].topk(2).indices.cpu()
        )
        return tuple(best.tolist())
    given = [answers] if isinstance(answers, str | int) else list(answers)
    if len(given) not in (1, 2):
        raise BadRequest(
            f"There are {len(given)} answers.", "Give one, or two whose difference is told."
        )
    return tuple(one_token_each(rmodel, given, after=tokens))


def _check(rmodel: Client, tokens: Tokens, by: By, position: int) -> None:
    """Refuse what cannot be told, before anything runs."""
    if by not in get_args(By):
        raise BadRequest(f"There is no by={by!r}.", f"There are {', '.join(get_args(By))}.")
    length = tokens.shape[1]
    if not -length <= position < length:
        raise BadRequest(
            f"The text has no position {position}.", f"It has {length} tokens: 0 to {length - 1}."
        )
    need(rmodel, "A direct attribution", *LAST_NORM)
    if by in _WITHIN:
        half, point, *_ = _WITHIN[by]
        need(rmodel, f"An attribution by {by}", point, half.out)


def _check_within(
    name: str, by: str, writer: LogitWriter, numbers: Tensor, tolerance: float
) -> None:
    """The parts of a half and its biases must be what it writes."""
    error = abs(float(numbers.sum()) + writer.constant - writer.whole)
    if error > tolerance * (float(numbers.abs().sum()) + abs(writer.whole)):
        raise BadRequest(
            f"What {name} writes is no sum over each {by}: {error:.3g} logits are missing.",
            'by="component" tells of it as a whole.',
        )


def _check_sum(
    total: float, uncapped: float, parts: list[Part], readout: Readout, tolerance: float
) -> None:
    """All parts must be the difference of logits before a soft cap."""
    size = sum(abs(float(part.vector @ readout.direction)) for part in parts)
    if abs(total - uncapped) > tolerance * (size + abs(uncapped)):
        raise BadRequest(
            f"The parts add up to {total:.4g}, and the difference of logits is {uncapped:.4g}.",
            "The final norm of this model reads something else than what its last layer leaves.",
        )


def _limits(readout: Readout) -> list[str]:
    """What a result does not say, in words."""
    limits = ["what later layers make of a part is not in its number"]
    if readout.capped:
        limits.append(
            f"logits are soft-capped: parts add up to the difference before that, {readout.uncapped:.6g}"
        )
    return limits
