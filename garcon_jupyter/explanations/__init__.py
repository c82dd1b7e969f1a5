"""What a language model says a unit fires for, and how well what it says predicts the unit.

    from garcon_jupyter import explanations
    from garcon_jupyter.explanations import OpenAICompatible

    model = OpenAICompatible("http://localhost:8000/v1", "a-model")
    found = explanations.explain(atlas, [("layers.4.mlp.post_activation", 17)], with_=model)
    print(found)                                         # explanations, scores, and those of other units' explanations
    explanations.open_explanations(atlas).search("cities")

Not here: what units do on data (``atlas``, ``features``), and how an explanation looks on a unit's page (``display``).

``explaining``       what users call
``running``          a plan with its cost, and what it does: explain, simulate, judge, compare
``records``          what is known of a unit, parted for explaining, calibrating and scoring
``language_models``  what explains, simulates and judges: one protocol, and what speaks it
``prompts``          what language models are asked, by versions
``scoring``          the formulas, and what is compared by them
``asking``           questions with kept answers, counted failures, costs and progress
``results``          what comes of it
``json_values``      that as JSON, and again
``checked_lines``    a file to which is only added, with checksums
``keeping``          explanations beside an atlas, found by unit and by words
``formats``          explanations in the layouts that others read and write
"""

from __future__ import annotations

from garcon_jupyter.explanations.asking import Attempts, ExplanationCost
from garcon_jupyter.explanations.explaining import explain, plan_explanations
from garcon_jupyter.explanations.formats import (
    from_debugger,
    from_neuronpedia,
    to_debugger,
    to_neuronpedia,
)
from garcon_jupyter.explanations.json_values import as_json, from_json
from garcon_jupyter.explanations.keeping import ExplanationStore, open_explanations
from garcon_jupyter.explanations.language_models import (
    Completion,
    FunctionModel,
    LanguageModel,
    NoUsableReply,
    OpenAICompatible,
    ServedModel,
)
from garcon_jupyter.explanations.records.excerpts import Excerpt, UnitExcerpts, of_record, parted
from garcon_jupyter.explanations.records.token_pairs import (
    HeadPairs,
    TokenPair,
    of_head,
    of_patterns,
)
from garcon_jupyter.explanations.results import (
    ExplainedUnits,
    Explanation,
    ScoredExplanation,
    Unexplained,
)
from garcon_jupyter.explanations.running import ExplanationPlan
from garcon_jupyter.explanations.scoring.scores import Score

__all__ = [
    "Attempts",
    "Completion",
    "Excerpt",
    "ExplainedUnits",
    "Explanation",
    "ExplanationCost",
    "ExplanationPlan",
    "ExplanationStore",
    "FunctionModel",
    "HeadPairs",
    "LanguageModel",
    "NoUsableReply",
    "OpenAICompatible",
    "Score",
    "ScoredExplanation",
    "ServedModel",
    "TokenPair",
    "Unexplained",
    "UnitExcerpts",
    "as_json",
    "explain",
    "from_debugger",
    "from_json",
    "from_neuronpedia",
    "of_head",
    "of_patterns",
    "of_record",
    "open_explanations",
    "parted",
    "plan_explanations",
    "to_debugger",
    "to_neuronpedia",
]
