"""What a server is launched with, and in what a running one differs from that."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

DEGREES = ("tp", "pp", "dp")


@dataclass(frozen=True)
class Settings:
    """What a server is launched with; see :func:`garcon_jupyter.launch`."""

    path: str
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    dtype: str | None = None
    device: str | None = None
    loader: str | None = None
    family: str | None = None
    adapter: dict[str, str] | None = None
    trust_remote_code: bool | None = None
    unchecked: bool | None = None

    def differs(self, facts: dict[str, Any]) -> str:
        """In what a running server differs from these settings, or nothing."""
        differences = []
        if facts["path"] != self.path:
            differences.append(f"model {facts['path']}")
        for word in DEGREES:
            asked, has = getattr(self, word), facts["degrees"][word]
            if asked is not None and asked != has:
                differences.append(f"{word}={has}")
        for word in (f.name for f in fields(self) if f.name not in ("path", *DEGREES)):
            asked, had = getattr(self, word), facts["settings"].get(word)
            has = facts["model"]["dtype"] if word == "dtype" and asked else had
            if word == "unchecked" and (asked or not had):  # who asks for less than there is has it
                continue
            if asked != has and not (word == "device" and asked is None):
                differences.append(f"{word}={has}")
        return ", ".join(differences)
