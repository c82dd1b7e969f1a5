"""Which servers belong to a fleet, by its file: ``NAME.fleet`` in the registry directory (0600).

A server is a server, and knows nothing of its fleet. So a fleet is a file beside theirs, and no fact that each of them is
launched with: a name with a dot in it makes no fleet, the order of the labels is kept, members that did not come
up are known too, and one that was launched again by hand is a member again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from garcon_jupyter.errors import GarconError, UnknownServer
from garcon_jupyter.servers import control, registry
from garcon_jupyter.servers.server import Server, registry_directory
from garcon_jupyter.wire.private_files import write_private

SUFFIX = ".fleet"


@dataclass(frozen=True)
class FleetFile:
    """A fleet as its file tells.

    Attributes:
        name: of the fleet.
        members: names of its servers by label, in order; the same for all where they are on one in turn.
        paths: of the checkpoints by label; empty in a file of the version that did not keep them.
    """

    name: str
    members: Mapping[str, str]
    paths: Mapping[str, str] = field(default_factory=dict)

    def living(self, running: Sequence[Server]) -> list[Server]:
        """Those of the running servers that are its members, in its order."""
        by_name = {server.name: server for server in running}
        names = dict.fromkeys(self.members.values())
        return [by_name[name] for name in names if name in by_name]

    @property
    def in_turn(self) -> bool:
        """Whether all members are on one server, one at a time."""
        return len(self.members) > 1 and len(set(self.members.values())) == 1

    def labelled(self, path: str | None) -> str | None:
        """The first member with the checkpoint at a path, or None."""
        return next((label for label, each in self.paths.items() if each == path), None)


def fleets() -> list[FleetFile]:
    """The fleets of this user on this host, by name; also those of which no member runs."""
    files = sorted(registry_directory().glob(f"*{SUFFIX}"))
    return [found for file in files if (found := read(file.name.removesuffix(SUFFIX)))]


def read(name: str) -> FleetFile | None:
    """The fleet of a name; None where there is none."""
    if not re.fullmatch(r"[\w.@+-]+", name):
        return None
    try:
        told = json.loads(_file(name).read_text(encoding="utf-8"))
        return FleetFile(name, told["members"], told.get("paths", {}))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(name: str, members: Mapping[str, str], paths: Mapping[str, Path]) -> None:
    """Keep which servers are members of a fleet, and of which checkpoints.

    Former members that still run stay members, behind: whoever stops the fleet means them, too.
    """
    former = read(name) or FleetFile(name, {})
    running = {server.name for server in former.living(registry.servers())}
    left = {
        label: server
        for label, server in former.members.items()
        if server in running and server not in members.values() and label not in members
    }
    found = {label: str(path) for label, path in paths.items()}
    found |= {label: former.paths[label] for label in left if label in former.paths}
    write_private(_file(name), {"name": name, "members": {**members, **left}, "paths": found})


def stopped(name: str, force: bool = False) -> Iterator[Server]:
    """End the server of a name or, where there is none, the fleet of that name, as :func:`ended` does.

    Raises:
        UnknownServer: neither a server nor a member of such a fleet runs.
        BadRequest, ServerGone: as of :func:`ended`.
    """
    try:
        alone = registry.find(name)
    except UnknownServer:
        if not _living(name):
            raise
        yield from ended(name, force)
        return
    control.stop(alone, force)
    yield alone


def ended(name: str, force: bool = False) -> Iterator[Server]:
    """End all members of a fleet, also where a server has its name; each is given when it has ended.

    One that cannot be ended keeps none of the others from it.

    Raises:
        UnknownServer: no member of such a fleet runs.
        BadRequest, ServerGone: as of :func:`~garcon_jupyter.servers.control.stop`, when all others have ended.
    """
    living = _living(name)
    if not living:
        running = registry.servers()
        known = [fleet.name for fleet in fleets() if fleet.living(running)]
        raise UnknownServer.among("running fleet", name, known, "garcon list names those that run.")
    failures: list[GarconError] = []
    for server in living:
        try:
            control.stop(server, force)
        except GarconError as error:
            failures.append(error)
            continue
        yield server
    if failures:
        raise failures[0]
    _file(name).unlink(missing_ok=True)


def _living(name: str) -> list[Server]:
    """The members of a fleet that run; none of a fleet that there is not."""
    fleet = read(name)
    return fleet.living(registry.servers()) if fleet else []


def _file(name: str) -> Path:
    return registry_directory() / f"{name}{SUFFIX}"
