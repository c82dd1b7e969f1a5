"""What runs, told to any number of browsers at the price of one: servers, and the fleets that they belong to.

A browser asks every few seconds. Each server is asked at most once in :data:`FRESH` seconds, whoever wants to know,
and by a question that its idle clock does not count. A server that takes long to answer delays nobody's list: it is
shown as silent until its answer comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from garcon_jupyter.errors import GarconError
from garcon_jupyter.servers import control, fleet_files, registry
from garcon_jupyter.servers.fleet_files import FleetFile
from garcon_jupyter.servers.server import Server

FRESH = 1.0
"""Seconds for which an answer is good enough for the next who asks."""

PATIENCE = 1.5
"""Seconds after which a server that has not answered is called silent."""

Told = dict[str, Any] | GarconError


class Watcher:
    """Looks at the servers.

    Args:
        threads: where the blocking questions are asked.
    """

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._asked: dict[tuple[str, int], tuple[float, asyncio.Future[Told]]] = {}

    async def look(self) -> dict[str, list[dict[str, Any]]]:
        """All running servers: what their files say, and what they answer; and the fleets of which some run."""
        loop = asyncio.get_running_loop()
        servers = await loop.run_in_executor(self._threads, registry.servers)
        fleets = await loop.run_in_executor(self._threads, fleet_files.fleets)
        known = {_key(server) for server in servers}
        self._asked = {key: asked for key, asked in self._asked.items() if key in known}
        told = await asyncio.gather(*map(self._told, servers))
        answers = {server.name: answer for server, answer in zip(servers, told, strict=True)}
        return {
            "servers": [row(server, answers[server.name]) for server in servers],
            "fleets": [fleet_row(each, answers) for each in fleets if each.living(servers)],
        }

    async def _told(self, server: Server) -> Told | None:
        """The server's status, the reason why there is none, or None where none can be had yet."""
        if server.facts.get("restarting"):
            return None
        loop = asyncio.get_running_loop()
        since, answer = self._asked.get(_key(server), (0.0, None))
        if answer is None or (answer.done() and loop.time() - since > FRESH):
            answer = loop.run_in_executor(self._threads, _status, server)
            self._asked[_key(server)] = loop.time(), answer
        try:
            return await asyncio.wait_for(asyncio.shield(answer), PATIENCE)
        except TimeoutError:
            return None

    def forget(self, name: str) -> None:
        """Ask the server of a name anew: somebody has just changed something."""
        self._asked = {key: asked for key, asked in self._asked.items() if key[0] != name}


def _key(server: Server) -> tuple[str, int]:
    return server.name, server.facts["supervisor"]


def _status(server: Server) -> Told:
    try:
        return control.status(server)
    except GarconError as error:
        return error


def row(server: Server, told: Told | None) -> dict[str, Any]:
    """One server as the side bar shows it.

    Its ``state`` is ``idle``, ``busy``, ``restarting``, or ``silent`` where it does not answer; in the last two
    ``problem`` says why, and what only the server knows is missing. Its ``supervisor`` tells it from an earlier one
    of its name.
    """
    facts = server.facts
    restarting = facts.get("restarting", "")
    shown = {
        "name": server.name,
        "path": facts["path"],
        "host": facts["host"],
        "pid": facts["pid"],
        "supervisor": facts["supervisor"],
        "model": facts["model"],
        "degrees": facts["degrees"],
        "ranks": facts["ranks"],
        "state": "restarting" if restarting else "silent",
        "problem": f"It starts anew: {restarting}." if restarting else "It has not answered yet.",
        "idle_left": None,
        "clients": [],
        "running": None,
        "waiting": [],
    }
    if isinstance(told, GarconError):
        return shown | {"problem": str(told)}
    if told is None:
        return shown
    answer = {key: told[key] for key in ("ranks", "idle_left", "clients", "running", "waiting")}
    return shown | answer | {"state": "busy" if told["running"] else "idle", "problem": ""}


def fleet_row(fleet: FleetFile, answers: Mapping[str, Told | None]) -> dict[str, Any]:
    """One fleet as the side bar shows it.

    Its members are in order, with the server of each, which may not run; in turn it is one server, whose ``loaded`` member has
    its weights there. That is None where the server has not said so, or has others.

    Args:
        fleet: of which one member runs at least.
        answers: what the running servers have answered, by their names.
    """
    loaded = None
    if fleet.in_turn:
        answer = answers[next(iter(fleet.members.values()))]
        loaded = fleet.labelled(answer.get("weights")) if isinstance(answer, dict) else None
    return {
        "name": fleet.name,
        "in_turn": fleet.in_turn,
        "loaded": loaded,
        "members": [
            {"label": label, "server": server, "path": fleet.paths.get(label)}
            for label, server in fleet.members.items()
        ],
    }
