"""All operations: what HTTP, TypeScript, the terminal and agents are made from."""

from __future__ import annotations

from typing import Any

from garcon_jupyter.errors import UnknownName
from garcon_jupyter.operations.analyses import (
    attribute,
    direct_logit_attribution,
    effects,
    head_scores,
    lens,
    patch,
)
from garcon_jupyter.operations.describing import describe, points, status
from garcon_jupyter.operations.gradients import backward
from garcon_jupyter.operations.operation import Operation
from garcon_jupyter.operations.parameters import parameter
from garcon_jupyter.operations.passes import attention, forward, generate
from garcon_jupyter.operations.stored_explanations import explanations
from garcon_jupyter.operations.tokenizing import chat, detokenize, tokenize
from garcon_jupyter.operations.unit_records import atlases, search, unit
from garcon_jupyter.operations.working import jobs, steer

SUBJECTS: dict[str, tuple[Operation[Any, Any], ...]] = {
    "What is there": (describe, points, status, parameter),
    "Tokens": (tokenize, detokenize, chat),
    "Passes": (forward, attention, generate, backward),
    "Analyses": (lens, direct_logit_attribution, effects, head_scores, patch, attribute),
    "Stored records of units": (atlases, unit, search, explanations),
    "What takes long": (jobs, steer),
}
"""Operations by their subject, in the order in which they are told."""

OPERATIONS: dict[str, Operation[Any, Any]] = {
    each.name: each for several in SUBJECTS.values() for each in several
}
"""Name → operation."""


def named(name: str) -> Operation[Any, Any]:
    """The operation of a name.

    Raises:
        UnknownName: there is none; says which are like it.
    """
    if name not in OPERATIONS:
        raise UnknownName.among("operation", name, OPERATIONS, "openapi.json lists them.")
    return OPERATIONS[name]
