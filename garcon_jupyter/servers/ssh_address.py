"""The address of a server on another machine: ``ssh://user@host/name``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from garcon_jupyter.errors import BadRequest

SCHEME = "ssh://"


@dataclass(frozen=True)
class SshAddress:
    """Where a server is.

    Attributes:
        text: as it was given.
        target: ``user@host``, or a name of the user's ssh configuration.
        port: of the ssh server; "" for the configured one.
        registry: directory of the connection files there; "" for the usual one.
        name: of the server there.
    """

    text: str
    target: str
    port: str
    registry: str
    name: str

    _FORM = re.compile(
        r"ssh://((?:[a-z0-9_][\w.+-]*@)?(?:\[[0-9a-f:.]+\]|[a-z0-9_][\w.-]*))(?::(\d+))?"
        r"(/(?:[^\s/]+/)*)([\w.@+-]+)",
        re.ASCII | re.IGNORECASE,
    )

    @classmethod
    def of(cls, text: str) -> SshAddress:
        """The address that a text is.

        Raises:
            BadRequest: it is none.
        """
        found = cls._FORM.fullmatch(text)
        if not found:
            raise BadRequest(
                f"{text!r} is no address of a server.",
                "Write ssh://user@host/name, with :port after the host, or the registry directory "
                "before the name, where they are not the usual ones.",
            )
        target, port, directory, name = found.groups()
        registry = directory.rstrip("/").replace("/~", "~", 1)
        return cls(text, re.sub(r"[\[\]]", "", target), port or "", registry, name)
