"""Names of other libraries as points."""

from __future__ import annotations

import difflib
import re

from garcon_jupyter.dictionaries.description import NamedPoint
from garcon_jupyter.dictionaries.hook_names import HOOK_NAMES, REFUSED
from garcon_jupyter.errors import UnclearPoint
from garcon_jupyter.points import parse_point

_EXAMPLES = (
    "blocks.3.hook_resid_pre",
    "blocks.3.hook_resid_mid",
    "blocks.3.hook_resid_post",
    "blocks.3.hook_mlp_out",
    "blocks.3.hook_attn_out",
    "blocks.3.attn.hook_z",
    "blocks.3.ln2.hook_normalized",
    "blocks.3.mlp.hook_in",
    "blocks.3.mlp.hook_post",
)


def place(named: str | None) -> NamedPoint:
    """The place that a name of any of these libraries means."""
    named = named or ""
    return NamedPoint(named, _points(named))


def point_of(named: str) -> str:
    """The point that a name of TransformerLens, Hugging Face or a folder means, or one of the table's own.

    ``blocks.3.hook_resid_post`` is ``layers.3.resid_post``.

    Raises:
        UnclearPoint: it may mean several, which are named; or nothing is known of it, with the nearest names.
    """
    points = _points(named)
    if points:
        return NamedPoint(named, points).point
    for pattern, what in REFUSED.items():
        if found := re.fullmatch(pattern, named):
            raise UnclearPoint(
                f"{named!r} is no point: it is {what.format(**found.groupdict())}.",
                "Give a dictionary of that point, or say at=.",
            )
    nearest = difflib.get_close_matches(re.sub(r"\d+", "3", named), _EXAMPLES, n=2, cutoff=0.6)
    hint = f"Did you mean a name such as {' or '.join(nearest)}? " if nearest else ""
    raise UnclearPoint(
        f"{named!r} is no name of a point that is known.",
        f"{hint}Say the point with at=, such as at='layers.3.resid_post'.",
        nearest,
    )


def hook_name(point: str) -> str:
    """TransformerLens's name of a point, which other libraries read; the point's own where it has none.

    ``layers.3.resid_post`` is ``blocks.3.hook_resid_post``.
    """
    for pattern, templates in HOOK_NAMES:
        if len(templates) == 1 and "hook_" in pattern:
            fields = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\w+)", re.escape(templates[0]))
            if found := re.fullmatch(fields, point):
                named = re.sub(r"\(\?P<(\w+)>[^)]*\)", lambda group: found[group[1]], pattern)
                named = named.replace("\\", "")
                if _points(named) == (point,):
                    return named
    return point


def _points(named: str) -> tuple[str, ...]:
    if parse_point(named) is not None:
        return (named,)
    for pattern, templates in HOOK_NAMES:
        if found := re.fullmatch(pattern, named):
            return tuple(template.format(**found.groupdict()) for template in templates)
    return ()
