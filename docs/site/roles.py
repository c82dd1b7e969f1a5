"""Docstrings are written for a prompt; on a page their references become links.

``:class:`~garcon_jupyter.client.look.Look``` is a link to it where the reference has it, and its name where it has not; a
line that ends in ``::`` begins a block of code.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`(~?)([\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites the text of each docstring when it has been read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value, obj.path)


def markdown(text: str, path: str) -> str:
    """What a docstring says, as Markdown. `path` is whose it is: a bare name may be its neighbour."""

    def link(found: re.Match[str]) -> str:
        tilde, target = found.groups()
        shown = target.rsplit(".", 1)[-1] if tilde or "." in target else target
        if target.startswith("garcon_"):
            return f'<autoref identifier="{target}" optional><code>{shown}</code></autoref>'
        near = f"{path.rsplit('.', 1)[0]}.{target}"
        return f'<autoref identifier="{near}" optional><code>{shown}</code></autoref>'

    return re.sub(r"::$", ":", ROLE.sub(link, text), flags=re.M)
