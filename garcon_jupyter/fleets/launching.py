"""Bringing the members of a fleet up, or finding those that run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack, cast

from garcon_jupyter import api
from garcon_jupyter.errors import BadRequest, GarconError, Interrupted
from garcon_jupyter.fleets import budget, labels, likeness
from garcon_jupyter.fleets.asking import check_on_error, raise_first
from garcon_jupyter.fleets.fleet import Fleet
from garcon_jupyter.fleets.in_turn import SharedServer
from garcon_jupyter.fleets.side_by_side import side_by_side
from garcon_jupyter.model_files import snapshots
from garcon_jupyter.model_files.snapshots import ModelDirectory
from garcon_jupyter.servers import fleet_files, limits, placement, registry
from garcon_jupyter.servers.option_checks import check_words
from garcon_jupyter.servers.option_forms import with_options
from garcon_jupyter.servers.options import HostsOptions, LaunchOptions
from garcon_jupyter.servers.server import Progress, Server
from garcon_jupyter.servers.settings import DEGREES, Settings

_NAME = re.compile(r"[\w.@+-]+")


@with_options
def fleet(
    models: Mapping[str, str | os.PathLike[str]] | str,
    name: str | None = None,
    *,
    revisions: Sequence[str] | None = None,
    alive: int | None = None,
    jobs: int | None = None,
    on_error: str = "keep",
    progress: Progress = print,
    **options: Unpack[LaunchOptions],
) -> Fleet:
    """Launch several checkpoints of one architecture, and connect to all of them.

    Before anything starts, their configurations and shapes are compared, and the memory of all is held against what is
    free. The same line, run again, finds the members that run and launches those that do not.

    Args:
        models: paths by label, as of :func:`garcon_jupyter.launch`: ``{"step0": path, "step512": path}``. The server
            of a member is ``NAME.LABEL``; what a server's name cannot have becomes a dash there. Or a hub id.
        name: of the fleet; None makes one of labels and paths.
        revisions: of the hub id: branches, tags or commits. They are the labels, in the order of their steps; what the
            local cache has needs no network.
        alive: None for a server each. 1 for one server in all, ``NAME.in-turn``, whose weights are exchanged for those of
            the member that is asked: memory for two models, and a second or so for each exchange.
        jobs: launches at once; None for half of the cores, as launches compute.
        on_error: "keep" has the exception of a member that did not come up stand in its place, as long as there is one
            that did; "raise" raises it. Those that came up go on in any case.
        progress: is told in a line what is going on, by label.

    Options are those of :func:`garcon_jupyter.launch`, the same for each: ``tp=2, dtype="bfloat16"``. Where neither `memory`
    nor `keep` is given, members on the CPU share what the models leave free; and its cores, unless `threads` is.

    Raises:
        NotAModel, FetchFailed: a path holds no model; nothing was launched.
        ModelsDiffer: they are not of one architecture; with the differences.
        DoesNotFit: they do not fit into memory together; with the numbers.
        BadRequest: a label, or an option, makes no sense.
        LaunchFailed: none came up; or the typed reason why.
        Interrupted: you interrupted it; launches under way were ended.
    """
    check_on_error(on_error)
    _check_options(options, jobs)
    _check_alive(alive, options)
    paths, id_ = _labelled(models, revisions)
    _check_models(paths, name)
    fleet_name = name or _automatic(paths, id_)
    servers = labels.servers(fleet_name, paths)
    if (dtype := _dtype(options)) is not None:
        options["dtype"] = dtype
    for label, path in paths.items():
        check_words(path, {"name": servers[label], **options})
    limits.taken(options)
    trusted = bool(options.get("trust_remote_code"))
    found = {
        label: snapshots.resolve(
            id_ or path, progress, False, trusted, revision=label if id_ else None
        )
        for label, path in paths.items()
    }
    likeness.check(found, dtype)
    alike = likeness.one_tokenizer([directory.path for directory in found.values()])
    _check_held_so(fleet_name, alive)
    if alive:
        return _in_turn(fleet_name, found, alike, progress, options)
    options = cast(LaunchOptions, {**options, **_limits(found, servers, options)})
    fleet_files.write(fleet_name, servers, {label: one.path for label, one in found.items()})
    launched = _launched(found, servers, jobs, progress, options)
    members = {label: _connected(server) for label, server in launched.items()}
    if on_error == "raise" or all(isinstance(one, BaseException) for one in members.values()):
        raise_first(members)
    return Fleet(fleet_name, members, alike)


IN_TURN = "in-turn"
"""How the name of the one server ends that a fleet in turn has."""


def _in_turn(
    fleet_name: str,
    found: Mapping[str, ModelDirectory],
    alike: bool,
    progress: Progress,
    options: LaunchOptions,
) -> Fleet:
    """A fleet on one server, which is launched with the first member or found as it runs.

    Raises:
        ModelsDiffer: tokenizers, or names of tensors, differ, so that weights could not be exchanged.
        DoesNotFit: two models do not fit into memory at once.
    """
    likeness.check_exchangeable(found, alike)
    name = f"{fleet_name}.{IN_TURN}"
    running = {server.name: server for server in registry.servers()}.get(name)
    path = next(iter(found.values())).path
    if running is None:
        budget.check_in_turn(_settings(path, options))
    elif any(str(each.path) == running.facts["path"] for each in found.values()):
        path = Path(running.facts["path"])  # with whichever it was launched: it has them all
    paths = {label: one.path for label, one in found.items()}
    fleet_files.write(fleet_name, dict.fromkeys(found, name), paths)
    server = api.launch(path, name, progress=progress, **options)
    return Fleet(fleet_name, SharedServer(server, paths), alike)


def _labelled(models: Any, revisions: Any) -> tuple[Any, str | None]:
    """The members by label, and the hub id whose revisions they are, if they are.

    Raises:
        BadRequest: revisions are given without an id, or an id without them.
    """
    if revisions is None and not isinstance(models, (str, os.PathLike)):
        return models, None
    texts = isinstance(revisions, (list, tuple)) and all(isinstance(r, str) for r in revisions)
    if not isinstance(models, str) or not texts or not revisions:
        raise BadRequest(
            f"revisions={revisions!r} of {models!r} name no members.",
            'Give a hub id and its revisions, fleet("org/name", revisions=["step0", "step512"]), or paths by label.',
        )
    return dict.fromkeys(labels.by_step(revisions), models), models


def _launched(
    found: Mapping[str, ModelDirectory],
    servers: Mapping[str, str],
    jobs: int | None,
    progress: Progress,
    options: LaunchOptions,
) -> dict[str, Server | BaseException]:
    """The servers of the members, or why they did not come up; so many at once as `jobs` says."""
    speaking = threading.Lock()

    def told(label: str, line: str) -> None:
        with speaking:
            progress(f"{label}: {line}")

    launches = {
        label: partial(
            api.launch, directory.path, servers[label], progress=partial(told, label), **options
        )
        for label, directory in found.items()
    }
    try:
        return side_by_side(launches, jobs or max(1, len(os.sched_getaffinity(0)) // 2))
    except Interrupted:
        raise Interrupted(
            "You interrupted the launch of the fleet; what was not ready has been ended.",
            "The same line launches the members that are missing.",
        ) from None


def _connected(server: Server | BaseException) -> Any:
    """A connection to a member in this notebook's session, or why there is none."""
    if isinstance(server, BaseException):
        return server
    try:
        return api.in_notebook_session(server)
    except GarconError as error:
        return error


# -- before anything starts ----------------------------------------------------------------------


def _check_options(options: Mapping[str, Any], jobs: Any) -> None:
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise BadRequest(f"jobs={jobs!r} is no number of launches.", "Give at least 1.")
    if options.get("loader"):
        raise BadRequest(
            "A fleet compares configurations, and a model that a loader makes has none.",
            "Launch such models one by one.",
        )
    several = [word for word in HostsOptions.__annotations__ if options.get(word) is not None]
    if several:
        raise BadRequest(
            f"A fleet is launched on one host, and {several[0]} is for several.",
            "Launch the members one by one; garcon.connect finds each.",
        )


def _check_models(models: Any, name: Any) -> None:
    """Raises BadRequest where there are no members, or a name can be none of a server."""
    if not isinstance(models, Mapping) or not models:
        raise BadRequest(
            "A fleet was given no members.",
            'Give paths by label: {"step0": path, "step512": path}; or a hub id and revisions=[…].',
        )
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise BadRequest(
            f"{name!r} is no name of a fleet.", "Use letters, digits, and . _ - @ + in it."
        )


def _check_alive(alive: Any, options: Mapping[str, Any]) -> None:
    if alive not in (None, 1) or isinstance(alive, bool):
        raise BadRequest(
            f"alive={alive!r} is no way to hold a fleet.",
            "Leave it out for a server each, or give alive=1 for one server whose weights are exchanged.",
        )
    if alive and options.get("launcher"):
        raise BadRequest(
            "A fleet in turn is launched on this host, not by Slurm.",
            "Leave out launcher, or launch the members one by one.",
        )
    if alive and options.get("adapter"):
        raise BadRequest(
            "Adapters were made for the weights of one checkpoint, and a fleet in turn exchanges them.",
            "Merge them into each checkpoint, or leave out alive.",
        )


def _check_held_so(fleet_name: str, alive: int | None) -> None:
    """Refuse a fleet that runs and is held the other way: whoever stops it later would miss those servers."""
    former, in_turn = fleet_files.read(fleet_name), f"{fleet_name}.{IN_TURN}"
    living = former.living(registry.servers()) if former else []
    if wrong := [server.name for server in living if (server.name == in_turn) != bool(alive)]:
        other = "a server each" if alive else "in turn"
        raise BadRequest(
            f"The fleet {fleet_name} runs already, and is held {other}: {', '.join(wrong[:3])}.",
            f"garcon stop {fleet_name} ends it; or give another name.",
        )


def _automatic(models: Mapping[str, Any], id_: str | None) -> str:
    """A name that the same members have again."""
    told = json.dumps([[str(label), os.fspath(path)] for label, path in models.items()])
    stem = "fleet" if id_ is None else re.sub(r"[^\w.+-]+", "-", id_.rpartition("/")[2])
    return f"{stem}-{hashlib.sha256(told.encode()).hexdigest()[:6]}"


def _dtype(options: Mapping[str, Any]) -> str | None:
    dtype = options.get("dtype")
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _limits(
    found: Mapping[str, ModelDirectory], servers: Mapping[str, str], options: Mapping[str, Any]
) -> dict[str, int]:
    """What each member may use, where nobody said; members that do not fit together are refused.

    Raises:
        DoesNotFit: with the numbers.
    """
    if options.get("launcher"):  # a job of Slurm runs on a host that nobody here knows
        return {}
    running = {server.name for server in registry.servers()}
    asked = {
        label: _settings(directory.path, options)
        for label, directory in found.items()
        if servers[label] not in running
    }
    left = budget.check(asked)
    if not asked or placement.device_of(next(iter(asked.values()))) != "cpu":
        return {}
    shared: dict[str, int] = {}
    if options.get("threads") is None:
        shared["threads"] = _threads(found, next(iter(asked.values())))
    if options.get("memory") is None and options.get("keep") is None:
        shared |= budget.share(left, len(found))
    return shared


def _threads(found: Mapping[str, ModelDirectory], member: Settings) -> int:
    """Threads of each rank: all members may compute at once, and more threads than cores would wait for one another."""
    degrees: list[int] = [getattr(member, word) or 1 for word in DEGREES]
    ranks = len(found) * math.prod(degrees)
    return max(1, (os.cpu_count() or 1) // ranks)


def _settings(path: Path, options: Mapping[str, Any]) -> Settings:
    """What decides about the memory of a member."""
    degrees = {word: options.get(word) for word in DEGREES}
    return Settings(str(path), dtype=_dtype(options), device=options.get("device"), **degrees)
