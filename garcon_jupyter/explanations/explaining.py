"""What users call: units are explained, and the explanations scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from garcon_jupyter.atlas.files import Atlas, Record
from garcon_jupyter.connection import prints
from garcon_jupyter.connection.progress import Count
from garcon_jupyter.errors import BadData, BadRequest, UnknownName
from garcon_jupyter.explanations.asking import Progress
from garcon_jupyter.explanations.keeping import ExplanationStore, open_explanations
from garcon_jupyter.explanations.language_models.protocol import CHAT, LanguageModel
from garcon_jupyter.explanations.records.excerpts import PARTS, TOP, of_record
from garcon_jupyter.explanations.results import ExplainedUnits, Explanation, Unexplained
from garcon_jupyter.explanations.running import (
    SCORES,
    ExplanationChoices,
    ExplanationPlan,
    UnitRecord,
)
from garcon_jupyter.explanations.scoring.calibration import check_kind
from garcon_jupyter.explanations.scoring.simulating import simulator


def plan_explanations(
    what: Atlas | Sequence[UnitRecord],
    units: Iterable[tuple[str, int] | Record] | None = None,
    with_: LanguageModel | None = None,
    judge_with: LanguageModel | None = None,
    method: str = "auto",
    top: int = TOP,
    calibration: str = "linear",
    score: Sequence[str] = ("simulation", "detection"),
    controls: int = 1,
    each: int = 4,
    part: str = "test",
    seed: int = 0,
    said: Mapping[tuple[str, int], str] | Iterable[Explanation] = (),
    where: str | Path | None = None,
) -> ExplanationPlan:
    """Plan to explain units; see :func:`explain`, which runs it.

    Raises:
        BadRequest: a model cannot do what it is to do, or there is no such score.
        UnknownName: the atlas has no such unit.
    """
    chosen = _choices(
        with_, judge_with, method, top, calibration, score, controls, each, part, seed
    )
    if isinstance(said, Mapping):
        known = {
            (point, unit): Explanation(point, unit, text, prompt="given")
            for (point, unit), text in said.items()
        }
    else:
        known = {(one.point, one.unit): one for one in said}
    if not isinstance(what, Atlas):
        store = None if where is None else ExplanationStore(where)
        return ExplanationPlan(list(what), (), chosen, store, known)
    if units is None and not known:
        raise BadRequest("No units were given.", 'Give [("layers.4.mlp.post_activation", 17)].')
    records, nothing = [], []
    for unit in units if units is not None else known:
        record = unit if isinstance(unit, Record) else what[unit[0], unit[1]]
        try:
            records.append(of_record(record))
        except BadData as error:
            nothing.append(Unexplained(record.point, record.unit, error.problem))
    store = open_explanations(what, where)
    return ExplanationPlan(records, nothing, chosen, store, known, store.atlas)


def explain(
    what: Atlas | Sequence[UnitRecord],
    units: Iterable[tuple[str, int] | Record] | None = None,
    with_: LanguageModel | None = None,
    judge_with: LanguageModel | None = None,
    method: str = "auto",
    top: int = TOP,
    calibration: str = "linear",
    score: Sequence[str] = ("simulation", "detection"),
    controls: int = 1,
    each: int = 4,
    part: str = "test",
    seed: int = 0,
    said: Mapping[tuple[str, int], str] | Iterable[Explanation] = (),
    where: str | Path | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    show: bool = True,
) -> ExplainedUnits:
    """Have a language model say what units fire for, and score what it says.

    What was answered is kept beside the atlas at once: the same call, after an interrupt or a kill, goes on, and asks nothing twice. Results are
    kept there too; :func:`open_explanations` reads them, and the unit's page shows them.

    Args:
        what: an atlas, or records: :func:`garcon_jupyter.explanations.of_head` makes those of attention heads.
        units: of the atlas: (point, unit), or its records.
        with_: the model that explains; None where all explanations are given.
        judge_with: the model that simulates and judges; by default the same.
        method: how it simulates: "all-at-once", "token-by-token", "json", or "auto".
        top: the highest level that it simulates; 9 for models whose tokenizer has "10" as two tokens.
        calibration: "none", "linear" or "percentile".
        score: of "simulation", "detection", "fuzzing", "intruder". Heads are scored by their pairs.
        controls: how many other units' explanations are scored on each unit's texts, for comparison.
        each: texts of each interval of the unit's values that are judged.
        part: "valid" or "test", on which simulations are scored.
        seed: of which texts are judged, and of their order.
        said: explanations that are there already, by (point, unit), or as they are imported; they are scored as they are. Of several of one unit the
            last counts.
        where: a directory for what is kept; by default ``explanations`` in the atlas's own.
        progress: called with (answered, of how many, what about).
        cancelled: asked before each question; what says yes ends the run.
        show: whether to print what it will cost, and how far it is.

    Returns:
        Explanations with their scores, and the units of which nothing is said.

    Raises:
        BadRequest: a model cannot do what it is to do, or there is no such score.
        UnknownName: the atlas has no such unit.
        LanguageModelRefused: a model answers no request.
        Interrupted: it was cancelled; the same call goes on.

    Source:
        Bills et al. 2023, https://openaipublic.blob.core.windows.net/neuron-explainer/paper/index.html; Paulo et al. 2024, arXiv 2410.13928.

    Examples:
        >>> from garcon_jupyter.explanations import Excerpt, FunctionModel, explain, parted
        >>> texts = [(f"In {n} a cat", " sat", " down") for n in range(24)]
        >>> rows = [Excerpt(text, (10.0, 0.0, 0.0)) for text in texts]
        >>> record = parted("a layer", 0, top=rows[:12], sample=rows[12:])
        >>> model = FunctionModel(lambda messages: "cats", lambda pieces, candidates: [[-1.0, -1.0]] * len(pieces))
        >>> found = explain([record], with_=model, score=["detection"], show=False)
        >>> found.scored[0].explanation.text
        'cats'
    """
    plan = plan_explanations(
        what,
        units,
        with_,
        judge_with,
        method,
        top,
        calibration,
        score,
        controls,
        each,
        part,
        seed,
        said,
        where,
    )
    if not show:
        return plan.run(progress, cancelled)
    prints.plain(0, "stdout", f"{len(plan.records)} units: {plan.cost}.\n")
    count = Count(plan.questions, "answers")

    def told(done: int, of: int, about: str) -> None:
        count.at(done)
        if progress is not None:
            progress(done, of, about)

    try:
        return plan.run(told, cancelled)
    finally:
        count.end()


def _choices(
    with_: LanguageModel | None,
    judge_with: LanguageModel | None,
    method: str,
    top: int,
    calibration: str,
    score: Sequence[str],
    controls: int,
    each: int,
    part: str,
    seed: int,
) -> ExplanationChoices:
    model = judge_with or with_
    if model is None:
        raise BadRequest(
            "No language model was given.",
            "Give with_: ServedModel(rmodel), OpenAICompatible(address, name), or one of your own.",
        )
    kinds = (score,) if isinstance(score, str) else tuple(score)
    for kind in kinds:
        if kind not in SCORES:
            raise UnknownName.among("score", kind, SCORES, f"Use {', '.join(SCORES)}.")
    if with_ is not None and CHAT not in with_.can:
        raise BadRequest(
            f"{with_.name} answers no messages, so it cannot explain.", "Give another as with_."
        )
    if part not in PARTS[2:]:
        raise BadRequest(f"Nothing is scored on {part!r}.", f"Use {' or '.join(PARTS[2:])}.")
    check_kind(calibration)
    way = simulator(model, method, top) if "simulation" in kinds else None
    return ExplanationChoices(
        with_, model, way, calibration, kinds, max(0, controls), each, part, seed
    )
