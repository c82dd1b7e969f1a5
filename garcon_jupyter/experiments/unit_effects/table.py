"""The table of a prompt: what each latent, head or neuron does to the answer, position by position.

found = experiments.effects(rmodel, "The capital of France is", "NAME", answers=(" Paris", " London"))
found.to_frame()                    # a row for each of the strongest
found.show()                        # units × tokens, a sheet for each kind of effect
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.function_checks import check_call
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import need, one_text, whole_pieces
from garcon_jupyter.experiments.reading.direct_logits import TOLERANCES
from garcon_jupyter.experiments.result import ExperimentResult, Label
from garcon_jupyter.experiments.target_tokens import one_token_each
from garcon_jupyter.experiments.unit_effects.ablations import ablated
from garcon_jupyter.experiments.unit_effects.answer_direction import (
    AnswerDirection,
    answer_direction,
)
from garcon_jupyter.experiments.unit_effects.gradient_pass import (
    BY_DIRECT_WAY,
    BY_GRADIENT,
    RANKED,
    PlacedUnit,
    gradients_of_units,
)
from garcon_jupyter.experiments.unit_effects.writers import UnitWriter, writers_of
from garcon_jupyter.points.dictionary_points import CROSSCODER

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client
    from garcon_jupyter.client.tokens import Tokens

SAYS = "activation × gradient: what the answer would lose without the unit, to first order"

Metric = Callable[[Any], Any]


def effects(
    rmodel: Client,
    tokens: Any,
    of: str | Sequence[str],
    answers: Sequence[Any] | str | int | None = None,
    metric: Metric | None = None,
    strongest: int = 50,
    by: str = BY_GRADIENT,
) -> ExperimentResult:
    r"""What latents, heads or neurons do to an answer, one by one, at each position of a prompt.

    Of a unit with activation a (of a head, its output z before the projection), which writes a·d, and the metric L of the run:

    - *activation*: a; of a head the length of z.
    - *write norm*: the length of a·d, as it is where the unit writes.
    - *activation × gradient*: a · ∂L/∂a, what L would lose without it, to first order. Over all latents of a dictionary, with
      error × gradient and what its bias and skip connection have (``facts["sums"]``), that is output × gradient, exactly.
    - *direct effect*: a · d · centred(gain ⊙ g) / scale, what a·d adds to L past all other parts. g is the gradient at what the final
      norm puts out, of which the denominator is held: as it is, the norm would take away what is along the stream. NaN where
      what it writes does not enter the stream through a norm or a matrix alone.
    - *total effect*: L − L(a set to 0), in a run of its own, with all that other parts make of it. Of the strongest alone.

    A latent of a cross-layer transcoder is one unit, ``NAME@LAYER NUMBER``: its write norm is the length of what it writes into all its
    layers side by side, its effects are by way of all of them, and ``facts["sums"]`` are over all layers' outputs. A crosscoder's latents
    are measured at the last of its points, past which alone a pass can change them.

    They are the columns of Transformer Debugger's node tables (Mossing et al. 2024). Latents are measured in the model as it is, or
    within ``rmodel.spliced(…)``, whose error then says what gradients see.

    Args:
        tokens: one text, or tokens.
        of: names of dictionaries that are loaded, "heads" or "neurons"; or several of these.
        answers: two tokens (texts or ids), for the difference of their logits at the last position, or one, for its logit; by
            default the two that the model finds likeliest.
        metric: logits [row, p, V] to [row], differentiable, instead of that.
        strongest: so many units are told, each at one position, and set to zero. No others travel.
        by: which are the strongest, by size: "activation × gradient", "activation" or "direct effect".

    Returns:
        ``values`` [unit, position], activation × gradient; NaN for those that are not among the strongest. ``more`` has "activation",
        "write norm", "direct effect" and "total effect", of the same shape, so ``to_frame()`` has them side by side;
        ``facts["sums"]`` is of each dictionary, ``facts["metric"]`` L.

    Raises:
        UnknownName: no dictionary of that name is loaded.
        PointUnavailable: the model lacks points that this is made of.
        BadRequest: several texts; answers or numbers that are none; nothing that is active.
        BadProbe: the metric cannot be called with logits.
        DoesNotFit: the prompt does not fit into the server's memory; before anything has run.

    Examples:
        >>> text = "When John and Mary went to the shops, John gave the bag to"
        >>> found = experiments.effects(rmodel, text, "heads", (" Mary", " John"), strongest=20)
        >>> found.strongest(1)
        [({'unit': 'head ...', 'position': 13}, ...)]
        >>> found.more["total effect"].shape == found.values.shape
        True
    """
    prompt = one_text(rmodel, tokens)
    _check(rmodel, strongest, by)
    chosen = writers_of(rmodel, of)
    loss, reads, told = _measure(rmodel, prompt, answers, metric)
    tolerance = TOLERANCES.get(rmodel.facts["model"]["dtype"], 5e-2)
    towards = answer_direction(rmodel, prompt, loss, reads, tolerance)
    directions = [towards.seen_from(writer) for writer in chosen]
    if by == BY_DIRECT_WAY and all(direction is None for direction in directions):
        raise BadRequest(
            f"None of these has a direct effect{': ' + towards.lacks if towards.lacks else ', as none writes to the stream'}.",
            f'Give by="{BY_GRADIENT}".',
        )
    found = gradients_of_units(rmodel, prompt, loss, reads, chosen, directions, by, strongest)
    if not found.units:
        raise BadRequest(
            "No unit has any effect here: none is active, or the answer does not depend on them.",
            "Give another prompt, or others of=.",
        )
    total, lengths = ablated(rmodel, prompt, loss, chosen, found.units)
    facts = {
        "model": rmodel.facts["name"],
        "of": [of] if isinstance(of, str) else list(of),
        "tokens": list(rmodel.token_strings(prompt)[0]),
        **told,
        "metric": towards.metric,
        "by": by,
        "sums": found.sums,
        "limits": _limits(rmodel, chosen, directions, towards),
        "names": {"position": {str(n): t for n, t in enumerate(whole_pieces(rmodel, prompt))}},
    }
    return _result(chosen, found.units, total, lengths, prompt.shape[1], facts)


def _result(
    chosen: Sequence[UnitWriter],
    units: Sequence[PlacedUnit],
    total: Tensor,
    lengths: Tensor,
    length: int,
    facts: dict[str, Any],
) -> ExperimentResult:
    """The numbers by unit and position."""
    import torch

    names = [f"{chosen[unit.writer].label}{unit.number}" for unit in units]
    rows = {name: row for row, name in enumerate(dict.fromkeys(names))}
    at = [rows[name] for name in names], [unit.position for unit in units]
    columns = {
        BY_GRADIENT: [unit.by_gradient for unit in units],
        "activation": [unit.activation for unit in units],
        "write norm": torch.tensor([unit.written for unit in units])
        .double()
        .where(lengths.isnan(), lengths),
        BY_DIRECT_WAY: [unit.direct for unit in units],
        "total effect": total,
    }
    made = {}
    for name, column in columns.items():
        made[name] = torch.full((len(rows), length), float("nan"), dtype=torch.float64)
        made[name][at] = torch.as_tensor(column, dtype=torch.float64)
    values = made.pop(BY_GRADIENT)
    axes: dict[str, tuple[Label, ...]] = {"unit": (*rows,), "position": (*range(length),)}
    return ExperimentResult("effects", values, axes, SAYS, facts, made)


def _measure(
    rmodel: Client,
    prompt: Tokens,
    answers: Sequence[Any] | str | int | None,
    metric: Metric | None,
) -> tuple[Metric, str, dict[str, Any]]:
    """What is measured of each row; the logits that it reads; what it is, as facts."""
    if metric is not None:
        if answers is not None:
            raise BadRequest(
                "There are answers and a metric, and only one of them can be measured.",
                "Leave one out.",
            )
        check_call(metric, "metric", "logits")
        return metric, "all", {"answers": None, "answer words": []}
    ids = _ids(rmodel, prompt, answers)
    signs = [1.0, -1.0][: len(ids)]

    def difference(logits: Any) -> Any:
        import torch

        asked = logits[:, -1, ids]
        wide = asked.to(torch.promote_types(asked.dtype, torch.float32))
        return wide @ torch.tensor(signs, dtype=wide.dtype, device=wide.device)

    words = rmodel.token_strings([ids], alone=True)[0]
    return difference, "last", {"answers": ids, "answer words": list(words)}


def _ids(rmodel: Client, prompt: Tokens, answers: Sequence[Any] | str | int | None) -> list[int]:
    if answers is None:
        best: Tensor = rmodel.forward(prompt, probes=[], logits="last")[0].topk(2).indices
        return [int(token) for token in best]
    given = [answers] if isinstance(answers, str | int) else list(answers)
    if len(given) not in (1, 2):
        raise BadRequest(
            f"There are {len(given)} answers.", "Give one, or two whose difference is told."
        )
    ids = one_token_each(rmodel, given, after=prompt)
    vocabulary = rmodel.catalog.sizes["V"]
    if wrong := [token for token in ids if not 0 <= token < vocabulary]:
        raise BadRequest(
            f"There is no token {wrong[0]}.", f"The vocabulary has 0 to {vocabulary - 1}."
        )
    if len(set(ids)) < len(ids):
        raise BadRequest(
            f"Both answers are token {ids[0]}: their logits never differ.", "Give two tokens."
        )
    return ids


def _check(rmodel: Client, strongest: int, by: str) -> None:
    if isinstance(strongest, bool) or not isinstance(strongest, int) or strongest < 1:
        raise BadRequest(f"strongest={strongest!r} is no number of them.", "Give at least 1.")
    if by not in RANKED:
        raise BadRequest(f"There is no by={by!r}.", f"There are {', '.join(RANKED)}.")
    need(rmodel, "A table of effects", "logits")


def _limits(
    rmodel: Client,
    chosen: Sequence[UnitWriter],
    directions: Sequence[Tensor | None],
    towards: AnswerDirection,
) -> list[str]:
    """What a result does not say, in words."""
    limits = ["activation × gradient is first order: what a unit does in company is not in it"]
    without = [
        writer.label.strip()
        for writer, direction in zip(chosen, directions, strict=True)
        if direction is None
    ]
    if without:
        why = towards.lacks or "what it writes does not enter the residual stream by itself"
        limits.append(f"no direct effects of {', '.join(without)}: {why}")
    there = rmodel.catalog.dictionaries
    for name in dict.fromkeys(writer.dictionary for writer in chosen if writer.dictionary):
        if there[name].kind == CROSSCODER:
            limits.append(
                f"{name}: what its latents do by way of {there[name].writes}, where it reads last; what they stand for at its other "
                "points stays as it is"
            )
    return limits
