"""Activation patching: every cell of a sweep, exactly.

Two texts differ in what makes the answer: "When John and Mary went to the shops, John …" and "…, Mary …". Of one of them a run is
made in which one place has the value that it has in the other (Vig et al. 2020; Meng et al. 2022; Zhang and Nanda 2024). How much of
the answer changes tells what passes through that place.

    e = experiments.patch(rmodel, clean, corrupted, "layers.*.attn.z", by=("layer", "head"), answers=(" Mary", " John"))
    e.values         # [layer, head]: 0 as corrupted, 1 as clean
    e.strongest(5)   # the five heads that bring back most
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.experiments.activation_patching.grid import Grid
from garcon_jupyter.experiments.activation_patching.measures import Measure
from garcon_jupyter.experiments.activation_patching.pairs import Pairs, Replace
from garcon_jupyter.experiments.activation_patching.results import (
    TOKENS,
    check_options,
    swept,
)
from garcon_jupyter.experiments.result import ExperimentResult

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client


def patch(
    rmodel: Client,
    clean: Any,
    corrupted: Any,
    points: str | Sequence[str],
    by: str | Sequence[str] = ("layer", "position"),
    answers: Any = None,
    metric: Callable[[Any], Any] | None = None,
    *,
    denoise: bool | None = None,
    replace: Replace = "patch",
    units: Sequence[int] | None = None,
    tokens: int = TOKENS,
    exact: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> ExperimentResult:
    """Patch every cell of a sweep, one at a time.

    A cell of ``by=("layer", "head")`` is one head of one layer at all positions; of ``("layer", "position")`` all of a layer at
    one position. What is not in `by` is patched together: by ``("position",)`` all layers at once. A number is

        (metric of the patched run − metric of the corrupted run) / (metric of the clean run − metric of the corrupted run)

    Cells are run together, as rows of batches that climb the layers: a cell joins at its layer with the residual stream of the
    run that it is patched in, so that no layer before is computed for it. Where a model's layers hand on more than that stream
    (Gemma 3n and 4, Zamba 2), cells are rows of whole forwards. Both are numerically one run for each cell, but for the rounding
    of batches of another size: in float32 within 1e-4; in bfloat16 a cell is as far off as two forwards of another batch
    size are from one another. Cells at positions before all that differs between the texts change nothing, and are not run.

    A sweep is one request as long as it has no more than `tokens` tokens, and else as many as it takes: between them other
    clients of the server take their turns, and each carries the unpatched runs along, so that the server keeps nothing.

    Args:
        clean, corrupted: texts, or tokens; or lists of them, which are patched two by two. Two of a pair have equally
            many tokens; pairs may be of different lengths, and are never padded.
        points: a pattern of points, or several: "layers.*.resid_pre", "layers.*.attn.z", "module:model.layers.*.mlp.output".
        by: the axes that cells are told apart by: "layer", "position", "head", "kv_head", "unit". Keys and values that several
            heads share have no "head" but a "kv_head".
        answers: a token for the clean and one for the corrupted text, as text or id, or a list of two for each pair; the
            metric is the logit of the first less that of the second, after the last token. By default what the model predicts
            after each text.
        metric: ``metric(logits)`` instead, which is given logits [row, p, V] on the server and gives one number for each row. It
            takes memory: all positions are unembedded. To bound it, give fewer `tokens`.
        denoise: the corrupted run is patched with values of the clean one; False is the other way, which shows what is
            needed and not what suffices. By default so for patches, and not for ablations, which are of the clean run.
        replace: what a place is given: "patch", the value of the pair's other run; "mean", the mean of the other runs of all pairs at
            that position; "resample", that of another pair, drawn by `seed`. The latter two are ablations, and take several pairs of
            one length.
        units: where "unit" is in `by`, which: neurons, or dimensions of all heads side by side, counted from 0.
        tokens: rows × positions of a request at most, which bounds its memory on the server: about tokens × (4 D + 3 M / tp)
            numbers. What does not fit is refused before it is run.
        exact: run each cell in a whole forward of its own, bit by bit as a loop would; many times slower.
        progress: a line that says how far it is, where it takes more than a moment.

    Returns:
        values: float32, one axis for each of `by`, in that order; before them "point" where there are several patterns, and
            "pair" where there are several pairs. NaN where a pattern has no such layer, or a text no such position.
        more: ``metric``, the metric of each patched run; ``clean`` and ``corrupted``, that of the ends, by pair.
        facts: what it is of, and ``forwards``, how it was run.

    Raises:
        BadRequest: unequal lengths; the same tokens twice; axes that a point has not; answers of several tokens; clean and
            corrupted run have the same metric, or the metric gives no number for each row.
        UnknownPoint, PointUnavailable: the model has no such point, or it is none of runs.
        DoesNotFit: a request does not fit into the server's memory; says what would.

    Examples:
        >>> clean = "When John and Mary went to the shops, John gave the bag to"
        >>> corrupted = "When John and Mary went to the shops, Mary gave the bag to"
        >>> found = experiments.patch(
        ...     rmodel, clean, corrupted, "layers.23.attn.z", by="head", answers=(" Mary", " John")
        ... )
        >>> found.strongest(1)
        [({'head': 3}, 0.73...)]
    """
    pairs = Pairs.of(rmodel, clean, corrupted)
    check_options(replace, tokens)
    denoise = replace == "patch" if denoise is None else bool(denoise)
    grid = Grid.of(rmodel, points, by, max(pairs.lengths), units)
    measure = Measure.of(rmodel, pairs, answers, metric)
    options: dict[str, Any] = {
        "denoise": denoise,
        "replace": replace,
        "exact": exact,
        "seed": seed,
    }
    return swept(
        "patch",
        *(rmodel, pairs, grid, measure, options),
        **options,
        tokens=tokens,
        progress=progress,
    )
