"""What the members of a fleet have at a point, or any numbers of each, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.client.look import read
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.result import ExperimentResult
from garcon_jupyter.fleets import labels as of_labels
from garcon_jupyter.model import RemoteModel
from garcon_jupyter.points import Address

if TYPE_CHECKING:
    from garcon_jupyter.widgets import MembersWidget

UNITS = 64
"""Units that are shown where there are more: those with the strongest values."""


def of_point(model: RemoteModel, point: Address, tokens: Any) -> np.ndarray:
    """What a clean pass over one text has at a point: [position, unit], or [head, query, key]; of units of heads their norm."""
    value = read(model, tokens, [point.name])[point.name]
    array: np.ndarray = value[0].float().cpu().numpy()
    letters = point.spec.dims[1:] if point.spec else ()
    if "p_q" in letters:
        return array
    if array.ndim > 2:
        axes = tuple(range(2, array.ndim))
        array = np.sqrt(np.square(array.astype(np.float64)).sum(axes)).astype(np.float32)
    return array if array.ndim == 2 else array[:, None]


def drawn(
    found: Mapping[str, Any],
    point: Address,
    tokens: Sequence[str],
    title: str,
    reference: str | None,
    units: int | None,
) -> MembersWidget:
    """The picture of a point.

    Args:
        found: of each member what :func:`of_point` gives, or its error.
        tokens: the text's, as strings.
        reference: the label of the member that is taken away from all.
        units: how many units are shown at most; None for all.
    """
    from garcon_jupyter.widgets import MembersWidget

    there = {label: one for label, one in found.items() if not isinstance(one, BaseException)}
    named = {"title": title + (f", minus {reference}" if reference else "")}
    steps = _steps(found)
    one = next(iter(there.values()))
    if one.ndim == 3:
        heads = [str(head) for head in range(len(one))]
        names = {"row_name": "query", "column_name": "key", "sheet_name": "head"}
        shown = _less(found, reference)
        return MembersWidget(shown, tokens, tokens, heads, steps=steps, **names, **named)
    shown = _less(found, reference)
    chosen = _strongest(shown, units)
    cut = {
        label: value if isinstance(value, BaseException) else value[:, chosen]
        for label, value in shown.items()
    }
    word = "head" if point.spec and len(point.spec.dims) > 3 else "unit"
    columns = [str(unit) for unit in chosen]
    names = {"row_name": "token", "column_name": word}
    return MembersWidget(cut, tokens, columns, steps=steps, **names, **named)


def of_numbers(
    found: Mapping[str, Any],
    rows: str | None,
    columns: str | None,
    title: str,
    reference: str | None,
) -> MembersWidget:
    """The picture of numbers of one's own: of each member an array or a result with two axes, or its error.

    Raises:
        BadRequest: all have failed, or a member's numbers have not two axes.
    """
    from garcon_jupyter.widgets import MembersWidget

    results = [one for one in found.values() if isinstance(one, ExperimentResult)]
    names: list[str | None] = [rows, columns]
    words: list[list[str] | None] = [None, None]
    if results:
        axes = results[0].axes
        if len(axes) != 2:
            raise BadRequest(
                f"The results have the axes {', '.join(axes)}, and a member's picture has two.",
                "Choose among the others first, or give arrays.",
            )
        names = [given or axis for given, axis in zip(names, axes, strict=True)]
        words = [[str(each) for each in places] for places in axes.values()]
    arrays = {
        label: one if isinstance(one, BaseException) else _array(one)
        for label, one in found.items()
    }
    return MembersWidget(
        _less(arrays, reference),
        words[0],
        words[1],
        title=title + (f", minus {reference}" if reference else ""),
        row_name=names[0] or "row",
        column_name=names[1] or "column",
        steps=_steps(found),
    )


def _array(one: Any) -> np.ndarray:
    value = one.values if isinstance(one, ExperimentResult) else one
    value = value.detach().float().cpu().numpy() if hasattr(value, "detach") else value
    array = np.asarray(value, dtype=np.float32)
    return array.reshape(1, -1) if array.ndim < 2 else array


def _less(found: Mapping[str, Any], reference: str | None) -> dict[str, Any]:
    """Each less the reference.

    Raises:
        BadRequest: that has failed.
    """
    if reference is None:
        return dict(found)
    of = found[reference]
    if isinstance(of, BaseException):
        raise BadRequest(
            f"The reference {reference!r} has no values: {of}", "Take another, or none."
        ) from of
    return {
        label: one if isinstance(one, BaseException) else one - of for label, one in found.items()
    }


def _strongest(found: Mapping[str, Any], units: int | None) -> list[int]:
    """The units with the strongest values in any member, in their order."""
    there = [one for one in found.values() if not isinstance(one, BaseException)]
    strength = np.nanmax([np.abs(one).max(0) for one in there], 0)
    if units is None or len(strength) <= units:
        return list(range(len(strength)))
    return sorted(np.argsort(-strength, kind="stable")[:units].tolist())


def _steps(found: Mapping[str, Any]) -> list[int] | None:
    """The steps that labels name; None where one names none."""
    steps = [of_labels.step_of(label) for label in found]
    return None if None in steps else [step for step in steps if step is not None]
